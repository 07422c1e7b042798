"""The runs that a timer on this machine starts: what fails is told, what is old is removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.local_machine import Machine, data

from servegraph_pipelines.schedules.failures import notify
from servegraph_pipelines.schedules.fire import fire
from servegraph_pipelines.schedules.pruning import KEPT_RUNS


def test_failures_pause_it_and_are_told(machine: Machine, tmp_path: Path) -> None:
    told = tmp_path / "told"
    tell = ["sh", "-c", f'echo "$SERVEGRAPH_SCHEDULE $SERVEGRAPH_STATUS $SERVEGRAPH_ERROR" >> {told}']
    machine.declare(parameters={"data": str(data(machine))}, pause_after_failures=2, notify=tell)
    machine.run("apply")
    (machine.folder / "sales.csv").unlink()
    assert fire(machine.kept) == 1
    assert "nightly failed [NOT_FOUND]" in told.read_text()
    assert "nightly" in machine.lines()
    assert fire(machine.kept) == 1
    assert "nightly paused [NOT_FOUND]" in told.read_text()
    assert "servegraph begin" not in machine.lines()
    assert json.loads((machine.kept / "state.json").read_text())["failures"] == 2
    machine.run("resume", "nightly")
    assert not (machine.kept / "state.json").exists()


TELL = ["sh", "-c", 'echo "$SERVEGRAPH_SCHEDULE $SERVEGRAPH_STATUS $SERVEGRAPH_ERROR" >> told']  # beside the file


def damage_pipeline(machine: Machine) -> None:
    (machine.kept / "pipeline.yaml").write_text("{")


def leave_no_room_for_the_run(machine: Machine) -> None:
    (machine.kept / "output").touch()


def leave_no_room_for_the_record(machine: Machine) -> None:
    (machine.folder / "sales.csv").unlink()
    (machine.kept / "state.json").mkdir()


def break_the_timer(machine: Machine) -> None:
    (machine.folder / "sales.csv").unlink()
    (machine.crontab.parent / "denied").touch()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (damage_pipeline, "NOT_A_PIPELINE"),
        (leave_no_room_for_the_run, "CANNOT_WRITE"),
        (leave_no_room_for_the_record, "NOT_FOUND"),
        (break_the_timer, "NOT_FOUND"),
    ],
)
def test_whatever_fails_is_told(cron: Machine, damage: Callable[[Machine], None], code: str) -> None:
    data(cron)
    limit = {"pause_after_failures": 1} if damage is break_the_timer else {}
    cron.declare(parameters={"data": "sales.csv"}, notify=TELL, **limit)
    cron.run("apply")
    damage(cron)
    assert fire(cron.kept) == 1
    assert (cron.folder / "told").read_text().startswith(f"nightly failed [{code}] ")


def test_a_long_error_is_told_too(tmp_path: Path) -> None:
    notify(
        ["sh", "-c", f'echo "$SERVEGRAPH_ERROR" > {tmp_path}/told'], "nightly", "failed", "bad\0\ud800" + "x" * 300_000
    )
    assert (tmp_path / "told").read_text().startswith("bad?xxx")


def test_of_a_record_that_cannot_be_read_is_said(cron: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    cron.declare()
    cron.run("apply")
    (cron.kept / "schedule.json").write_text("{")
    assert fire(cron.kept) == 1
    assert "schedule.json cannot be read" in capsys.readouterr().err


def test_old_runs_are_removed(cron: Machine) -> None:
    data(cron)
    cron.declare(parameters={"data": "sales.csv"})
    cron.run("apply")
    for day in range(1, 6):
        (cron.kept / f"output/pipeline/train-and-deploy-2026-01-0{day}-03-00-00-000000").mkdir(parents=True)
    (cron.folder / "sales.csv").unlink()
    assert fire(cron.kept) == 1
    assert len(list((cron.kept / "output/pipeline").iterdir())) == KEPT_RUNS


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_schedule_that_cannot_be_understood_says_so(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "schedule.json").write_text(content)
    assert fire(tmp_path) == 1
    assert "schedule.json cannot be read" in capsys.readouterr().err
