"""`schedule` on both services through the real clients."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from tests.emulators.http_server import Tampering
from tests.emulators.kubeflow import FakeKubeflow
from tests.emulators.vertex_pipelines import FakeVertexPipelines

from servegraph.errors import InputError, ServegraphError
from servegraph_pipelines import flows
from servegraph_pipelines.cli import app

FLOW = Path(flows.__file__).with_name("train_and_deploy.yaml")

TARGET = {"target": "kserve", "namespace": "ml", "staging": "gs://b/models"}


@dataclass
class Place:
    kind: str
    file: Path
    where: dict[str, str]
    fake: Any

    def declare(self, **changes: Any) -> None:
        row = {
            "name": "nightly",
            "cron": "0 3 * * MON",
            "engine": self.kind,
            "pipeline": str(FLOW),
            "place": self.where,
        }
        row["parameters"] = {"seed": 3, "hyperparameters": {"epochs": 2}}
        row |= changes
        row["parameters"] = {**TARGET, **row["parameters"]}
        self.file.write_text(yaml.safe_dump({"schedules": [row]}))

    def run(self, verb: str, *names: str) -> int:
        return app.main(["schedule", verb, str(self.file), *names, "--json"], standalone_mode=False)

    def ids(self) -> list[str]:
        if self.kind == "vertex":
            return list(self.fake.schedules)
        return list(self.fake.recurring)

    def paused(self) -> list[bool]:
        if self.kind == "vertex":
            return [row["state"] == "PAUSED" for row in self.fake.schedules.values()]
        return [row["status"] != "ENABLED" for row in self.fake.recurring.values()]


@pytest.fixture(params=["vertex", "kfp"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    file = tmp_path / "schedules.yaml"
    if request.param == "vertex":
        with FakeVertexPipelines() as vertex:
            where = {"project": "p", "region": "r", "pipeline_root": "gs://b/root", "api_url": vertex.url}
            yield Place("vertex", file, where, vertex)
    else:
        with FakeKubeflow() as kubeflow:
            yield Place("kfp", file, {"api_url": kubeflow.url}, kubeflow)


def outcome(capsys: pytest.CaptureFixture[str]) -> Any:
    (change,) = json.loads(capsys.readouterr().out)["schedules"]
    return change.get("outcome", change)


def test_apply_makes_it_once_and_again_changes_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.declare()
    assert place.run("diff") == 1
    assert outcome(capsys) == "created"
    assert place.ids() == []
    place.run("apply")
    assert outcome(capsys) == "created"
    before = place.ids()
    place.run("apply")
    assert outcome(capsys) == "unchanged"
    assert place.run("diff") == 0
    assert place.ids() == before


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"parameters": {"seed": 4}}, "seed"),
        ({"images": {"registry": "r.io/x"}}, ""),
        ({"resources": {"train": {"cpu": 8}}}, ""),
        ({"labels": {"team": "fraud"}}, ""),
    ],
)
def test_what_services_cannot_change_is_made_anew(
    place: Place, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], why: str
) -> None:
    place.declare()
    place.run("apply")
    before = place.ids()
    capsys.readouterr()
    place.declare(**changes)
    place.run("apply")
    (change,) = json.loads(capsys.readouterr().out)["schedules"]
    assert change["outcome"] == "replaced"
    assert why in " ".join(change["why"])
    assert len(place.ids()) == 1
    assert place.ids() != before
    place.run("apply")
    assert outcome(capsys) == "unchanged"


def test_another_time_keeps_the_schedule_where_the_service_can(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.declare()
    place.run("apply")
    before = place.ids()
    capsys.readouterr()
    place.declare(cron="30 4 * * *", concurrency=2)
    place.run("apply")
    assert outcome(capsys) == ("updated" if place.kind == "vertex" else "replaced")
    assert (place.ids() == before) == (place.kind == "vertex")
    place.run("list")
    listed = outcome(capsys)
    assert listed["cron"] == ("30 4 * * *" if place.kind == "vertex" else "0 30 4 * * *")


def test_a_paused_schedule_stays_paused_whatever_is_applied(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.declare()
    place.run("apply")
    place.run("pause", "nightly")
    place.run("pause", "nightly")
    assert place.paused() == [True]
    place.declare(parameters={"seed": 5})
    place.run("apply")
    assert place.paused() == [True]
    capsys.readouterr()
    place.declare(parameters={"seed": 5}, paused=False)
    place.run("apply")
    assert outcome(capsys) == "resumed"
    assert place.paused() == [False]


def test_resuming_starts_no_missed_runs(place: Place) -> None:
    place.declare()
    place.run("apply")
    place.run("pause", "nightly")
    before = place.ids()
    place.run("resume", "nightly")
    assert place.paused() == [False]
    if place.kind == "vertex":
        assert next(iter(place.fake.schedules.values()))["catchUp"] is False
    else:  # one that is enabled again would start its newest missed run at once
        assert place.ids() != before


def test_delete_is_complete_and_may_be_repeated(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.declare()
    place.run("apply")
    capsys.readouterr()
    place.run("delete", "nightly")
    assert outcome(capsys) == "deleted"
    place.run("delete", "nightly")
    assert outcome(capsys) == "absent"
    with pytest.raises(InputError) as caught:
        place.run("pause", "nightly")
    assert caught.value.code == "NO_SCHEDULE"


def test_a_lost_answer_does_not_make_a_second_schedule(place: Place) -> None:
    place.declare()
    struck = []

    def once(request: Any) -> Tampering | None:
        if request.method == "POST" and request.path.endswith(("/schedules", "/recurringruns")) and not struck:
            struck.append(request)
            return Tampering(after=True)
        return None

    place.fake.tamper = once
    place.run("apply")
    assert struck
    assert len(place.ids()) == 1


def test_duplicates_made_elsewhere_are_removed(place: Place) -> None:
    place.declare()
    place.run("apply")
    store = place.fake.schedules if place.kind == "vertex" else place.fake.recurring
    key = "name" if place.kind == "vertex" else "recurring_run_id"
    (first,) = store.values()
    store[first[key] + "0"] = {**first, key: first[key] + "0"}
    assert place.run("diff") == 1
    place.run("apply")
    assert len(place.ids()) == 1


def test_there_are_never_two_and_a_refused_one_leaves_the_old(place: Place) -> None:
    place.declare()
    place.run("apply")
    most = []

    def refuse_new(request: Any) -> Tampering | None:
        most.append(len(place.ids()))
        creates = request.method == "POST" and request.path.endswith(("/schedules", "/recurringruns"))
        return Tampering(after=False, status=403) if creates and "9.0" in request.body.decode() else None

    place.fake.tamper = refuse_new
    place.declare(parameters={"seed": 9, "latency_goal_ms": 9.0})
    with pytest.raises(ServegraphError):
        place.run("apply")
    assert max(most) == 1
    assert len(place.ids()) == 1
    assert place.paused() == [False]
    place.fake.tamper = lambda request: None
    place.declare()
    assert place.run("diff") == 0


def creates(request: Any) -> bool:
    return bool(request.method == "POST" and request.path.endswith(("/schedules", "/recurringruns")))


def test_interrupted_between_removing_and_making_the_old_one_is_back(place: Place) -> None:
    place.declare()
    place.run("apply")
    place.run("pause", "nightly")

    def interrupt(request: Any) -> Tampering | None:
        if not creates(request):
            return None
        place.fake.tamper = lambda request: None
        return Tampering(after=False, act=lambda: os.kill(os.getpid(), signal.SIGINT), stalls=True)

    place.fake.tamper = interrupt
    place.declare(parameters={"seed": 9})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(click.Abort):
            place.run("apply")
    finally:
        signal.signal(signal.SIGINT, before)
    assert place.paused() == [True]
    place.declare()
    assert place.run("diff") == 0


def test_that_a_schedule_is_gone_is_said(place: Place) -> None:
    place.declare()
    place.run("apply")
    place.run("pause", "nightly")
    place.fake.tamper = lambda request: Tampering(after=False, status=403) if creates(request) else None
    place.declare(parameters={"seed": 9})
    with pytest.raises(ServegraphError, match=r"nightly, which was paused, is gone: .* 403 .* again: .* 403") as gone:
        place.run("apply")
    assert gone.value.code == "SCHEDULE_GONE" and "`paused: true`" in gone.value.fix


def test_what_cannot_be_paused_or_resumed_is_as_it_was(place: Place) -> None:
    ends = {"vertex": ":pause", "kfp": "/recurringruns"}[place.kind]
    place.declare(paused=True)

    def refuse(request: Any) -> Tampering | None:
        if request.method != "POST" or not request.path.endswith(ends):
            return None
        place.fake.tamper = lambda request: None
        return Tampering(after=False, status=403)

    if place.kind == "kfp":  # resumed it is made anew
        place.run("apply")
    place.fake.tamper = refuse
    with pytest.raises(ServegraphError, match="403"):
        place.run(*(("resume", "nightly") if place.kind == "kfp" else ("apply",)))
    assert place.paused() == ([True] if place.kind == "kfp" else [])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cron": "0 3 * *"}, "BAD_CRON"),
        ({"crno": "x"}, "BAD_SCHEDULE"),
        ({"name": "Nightly"}, "BAD_SCHEDULE"),
        ({"time_zone": "Mars/Base"}, "BAD_SCHEDULE"),
        ({"time_zone": "localtime"}, "BAD_SCHEDULE"),
        ({"concurrency": 0}, "BAD_SCHEDULE"),
        ({"catch_up": "no"}, "BAD_SCHEDULE"),
        ({"parameters": {"sed": 1}}, "UNKNOWN_PARAMETER"),
        ({"parameters": {"seed": "1"}}, "BAD_PARAMETER"),
        ({"resources": {"trian": {"cpu": 1}}}, "UNKNOWN_STEP"),
        ({"place": {"projct": "p"}}, "BAD_SCHEDULE"),
        ({"images": {"regstry": "r.io/x"}}, "BAD_SCHEDULE"),
        ({"images": {"registry": "r.io/x", "tag": 1.2}}, "BAD_SCHEDULE"),
        ({"notify": ["true"]}, "NOT_FOR_ENGINE"),
        ({"labels": {5: "x"}}, "BAD_SCHEDULE"),
        ({"resources": {5: {"cpu": 1}}}, "BAD_SCHEDULE"),
        ({"images": {"tag": 1.10}}, "BAD_SCHEDULE"),
        ({"place": {"directory": [1]}}, "BAD_SCHEDULE"),
        ({"place": {"project": None}}, "BAD_SCHEDULE"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_sent(place: Place, changes: dict[str, Any], code: str) -> None:
    place.declare(**changes)
    with pytest.raises(InputError) as caught:
        place.run("apply")
    assert caught.value.code == code
    assert place.fake.calls == []


@pytest.mark.parametrize("verb", ["apply", "diff"])
def test_what_a_scheduler_cannot_run_is_refused_before_any_other_is_touched(place: Place, verb: str) -> None:
    place.declare()
    (first,) = yaml.safe_load(place.file.read_text())["schedules"]
    key = "projects/p/locations/elsewhere/keyRings/r/cryptoKeys/k"  # kfp has none, and vertex takes its region's
    place.file.write_text(yaml.safe_dump({"schedules": [first, {**first, "name": "other", "encryption_key": key}]}))
    with pytest.raises(InputError) as caught:
        place.run(verb)
    assert caught.value.code == ("OTHER_REGION" if place.kind == "vertex" else "NOT_FOR_ENGINE")
    assert place.fake.calls == []


def test_what_fails_again_and_again_is_paused_and_told(place: Place, tmp_path: Path) -> None:
    told = tmp_path / "told"
    notify = ["sh", "-c", f'echo "$SERVEGRAPH_SCHEDULE $SERVEGRAPH_STATUS $SERVEGRAPH_ERROR" >> {told}']
    place.declare(pause_after_failures=2, notify=notify)
    place.run("apply")
    place.fake.fails["train"] = "Out of memory."
    place.fake.fire()
    assert place.run("check") == 0
    place.fake.fire()
    assert place.run("check") == 1
    assert place.paused() == [True]
    assert told.read_text().startswith("nightly paused ")
    place.run("resume", "nightly")
    assert place.run("check") == 0  # what failed before counts no more
    place.fake.fails.clear()
    place.fake.fire()
    place.fake.fails["train"] = "Out of memory."
    place.fake.fire()
    assert place.run("check") == 0
    assert place.paused() == [False]


def test_time_zones(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.declare(time_zone="Europe/Berlin")
    if place.kind == "kfp":  # a recurring run has none: the line is read in that of the installation
        with pytest.raises(InputError) as caught:
            place.run("apply")
        assert caught.value.code == "NOT_FOR_ENGINE"
        assert place.fake.calls == []
        place.declare(time_zone="Asia/Kolkata", cron="0 3 * * MON")  # which never changes its clock
        place.run("apply")
        (made,) = place.fake.recurring.values()
        assert made["trigger"]["cron_schedule"]["cron"] == "0 30 21 * * 0"
        capsys.readouterr()
        place.run("apply")
        assert outcome(capsys) == "unchanged"
        place.declare(time_zone="Europe/Berlin", place={**place.where, "cron_time_zone": "Europe/Berlin"})
        place.run("apply")
        (made,) = place.fake.recurring.values()
        assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
        return
    place.run("apply")
    assert next(iter(place.fake.schedules.values()))["cron"] == "TZ=Europe/Berlin 0 3 * * 1"
    capsys.readouterr()
    place.run("apply")
    assert outcome(capsys) == "unchanged"


def test_only_what_needs_the_images_reads_their_lock(place: Place, tmp_path: Path) -> None:
    names = ("python-tensorflow", "python-slim")
    lock = tmp_path / "images.json"
    lock.write_text(json.dumps({name: f"r.io/x/{name}@sha256:{'0' * 64}" for name in names}))
    place.declare(images={"lock": "images.json"}, pause_after_failures=1)
    place.run("apply")
    before = place.ids()
    lock.unlink()
    for verb in ("list", "check", "pause"):
        place.run(verb, *(["nightly"] if verb == "pause" else []))
    assert place.paused() == [True]
    for verb in ("apply", "diff", *(["resume"] if place.kind == "kfp" else [])):  # that one is made anew
        with pytest.raises(InputError) as caught:
            place.run(verb, "nightly")
        assert caught.value.code == "BAD_IMAGE_LOCK"
        assert caught.value.fix
    assert place.ids() == before
    place.run("delete", "nightly")
    assert place.ids() == []
