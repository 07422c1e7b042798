"""The local target: deploys and removals at the same time, and versions whose files are gone."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from pathlib import Path

import pytest
from tests.bad_models.damage import flip_bit
from tests.tiny_models import DEBUG_FILE
from tests.unit.deploy_version.local_deploys import (
    files_below,
    request,
    say_yes,
    write_model,
)

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.lock import locked
from servegraph.deploy_version.targets import Place, open_target
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.errors import DeployRefused, InputError
from servegraph.live_version.live import find_live
from servegraph.serve.state import read_state, write_state
from servegraph.serve.versions import wanted_model


def test_a_version_whose_files_are_gone_is_not_live(
    root: Path, target: LocalTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [write_model(tmp_path, content) for content in "12"]
    for model in models:
        deploy(request(model), target)
    shutil.rmtree(root / "census" / "2")
    assert [(v.version, v.files_lost) for v in target.versions("census").versions] == [("2", True), ("1", False)]
    assert find_live("census", "local", (str(root), "", "", "", "", "")) == ("", "")
    assert "warning: the files of version 2 of census, which is live, are gone" in capsys.readouterr().out
    plan = plan_deploy(request(models[1]), target)
    assert (plan.outcome, plan.version, dict(plan.traffic_before)) == ("updated", "3", {"2": 100})
    done = deploy(request(models[1]), target)
    assert (done.outcome, done.version, done.removed, dict(done.traffic)) == ("updated", "3", ("2",), {"3": 100})
    assert any("are gone" in warning and "2; this deploy forgets them" in warning for warning in done.warnings)
    assert [(v.version, v.files_lost) for v in target.versions("census").versions] == [("3", False), ("1", False)]
    assert find_live("census", "local", (str(root), "", "", "", "", "")) == ("3", str(root / "census" / "3"))
    assert deploy(request(models[1]), target).outcome == "unchanged"


def test_what_is_lost_is_not_rolled_back_to(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    for content in "12":
        deploy(request(write_model(tmp_path, content)), target)
    (root / "census" / "1" / "saved_model.pb").unlink()
    for to in (None, "1"):
        with pytest.raises(DeployRefused, match="files of version 1 of census are gone") as caught:
            target.rollback("census", to)
        assert (caught.value.code, "Versions: 2." in caught.value.fix) == ("FILES_LOST", True)
    assert target.versions("census").live == "2"


def test_a_version_that_lost_some_of_its_files_is_lost_and_deployed_anew(
    root: Path, target: LocalTarget, tmp_path: Path
) -> None:
    model = write_model(tmp_path, "1")
    (model / "assets").mkdir()
    (model / "assets/words.txt").write_text("a b c")
    deploy(request(model), target)
    version = root / "census/1"
    (version / "assets/note.txt").write_text("of somebody who looked")  # more than was deployed is no loss
    assert not target.versions("census").versions[0].files_lost
    (version / "assets/note.txt").unlink()
    (version / "assets/words.txt").unlink()
    assert target.versions("census").versions[0].files_lost
    outcome = deploy(request(model), target)
    assert (outcome.outcome, outcome.version) == ("updated", "2")
    assert (root / "census/2/assets/words.txt").read_text() == "a b c"


def test_a_version_whose_bytes_changed_is_not_rolled_back_to_and_deployed_anew(
    root: Path, target: LocalTarget, tmp_path: Path
) -> None:
    models = [write_model(tmp_path, content) for content in "12"]
    for model in models:
        deploy(request(model), target)
    for version in "12":
        flip_bit(DEBUG_FILE, 0)(root / "census" / version)
    with pytest.raises(DeployRefused, match="not those that were deployed") as caught:
        target.rollback("census")
    assert caught.value.code == "FILES_LOST"
    done = deploy(request(models[1]), target)
    assert (done.outcome, done.version, done.removed) == ("updated", "3", ("2",))
    assert any("damaged" in warning for warning in done.warnings)
    assert deploy(request(models[1]), target).outcome == "unchanged"


def test_a_deploy_that_fails_does_not_take_a_lost_version_from_a_running_server(root: Path, tmp_path: Path) -> None:
    deploy(request(write_model(tmp_path, "1")), LocalTarget(root, probe=say_yes))
    shutil.rmtree(root / "census" / "1")

    def say_no(*_: object) -> None:
        raise DeployRefused("It answers otherwise.", code="PROBE_FAILED")

    with pytest.raises(DeployRefused):
        deploy(request(write_model(tmp_path, "2")), LocalTarget(root, probe=say_no))
    state = read_state(root / "census")
    assert state is not None
    assert dict(state.traffic) == {1: 100}


def test_the_second_waits_and_says_who_holds_the_lock(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")
    with locked(root / "census", 0), pytest.raises(DeployRefused) as caught:
        deploy(request(model), target)
    assert caught.value.code == "LOCKED"
    assert f"process {os.getpid()} on {os.uname().nodename} since 20" in caught.value.message
    assert deploy(request(model), target).outcome == "created"


def test_two_deploys_of_the_same_model_at_once_make_one_version(root: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")
    outcomes: list[str] = []

    def run() -> None:
        target = LocalTarget(root, probe=say_yes, lock_timeout_s=10)
        outcomes.append(deploy(request(model), target).outcome)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["created", "unchanged", "unchanged", "unchanged"]
    assert [entry.name for entry in (root / "census").iterdir() if entry.name.isdigit()] == ["1"]


def test_a_lock_file_that_was_removed_with_its_model_is_no_lock(tmp_path: Path) -> None:
    directory = tmp_path / "census"
    with locked(directory, 0):
        stale = os.open(directory / ".lock", os.O_RDWR)
        (directory / ".lock").unlink()
    fcntl.flock(stale, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with locked(directory, 0):
        pass
    os.close(stale)


def test_many_come_and_go_at_once(root: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")
    errors: list[BaseException] = []

    def run() -> None:
        target = LocalTarget(root, probe=say_yes, lock_timeout_s=30)
        try:
            for _ in range(5):
                deploy(request(model), target)
                target.undeploy("census")
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(root.iterdir()) == []


def test_undeploying_what_is_no_model_touches_nothing(root: Path, target: LocalTarget) -> None:
    (root / "notes").mkdir(parents=True)
    (root / "notes" / "a.txt").write_text("a")
    assert target.undeploy("notes").outcome == "unchanged"
    assert files_below(root) == ["notes/a.txt"]


def test_an_undeploy_that_was_cut_short_is_completed(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    deploy(request(write_model(tmp_path, "1")), target)
    state = read_state(root / "census")
    assert state is not None
    write_state(root / "census", state.without((1,)))  # what is written before the files are removed
    assert wanted_model(root / "census").versions == {}
    target.undeploy("census")
    assert list(root.iterdir()) == []


def test_a_root_on_cloud_storage_is_not_made_a_local_directory() -> None:
    with pytest.raises(InputError, match="'gs://bucket/root' is an address"):
        open_target("local", Place(root="gs://bucket/root"))
