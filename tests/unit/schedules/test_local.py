"""`schedule` on this machine, through its own commands."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.local_machine import Machine, data

from servegraph.errors import ServegraphError
from servegraph_pipelines.schedules.timers import machine_zone


def outcome(capsys: pytest.CaptureFixture[str]) -> Any:
    (change,) = json.loads(capsys.readouterr().out)["schedules"]
    return change["outcome"]


def test_on_this_machine(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.crontab.write_text("1 2 3 4 5 other\n")
    machine.declare()
    machine.run("apply")
    assert outcome(capsys) == "created"
    wanted = "0 3 * * 1 " if machine.scheduler == "cron" else f"OnCalendar=Mon *-*-* 03:00:00 {machine_zone()}"
    assert wanted in machine.lines()
    machine.run("apply")
    assert outcome(capsys) == "unchanged"
    machine.run("pause", "nightly")
    assert wanted not in machine.lines()
    machine.declare(cron="0 5 * * MON")
    machine.run("apply")
    assert "0 5 * * 1" not in machine.lines()  # still paused
    machine.run("resume", "nightly")
    assert wanted.replace("03:", "05:").replace("0 3 ", "0 5 ") in machine.lines()
    capsys.readouterr()
    machine.run("apply")
    assert outcome(capsys) == "unchanged"
    machine.run("delete", "nightly")
    assert "servegraph" not in machine.lines()
    assert "1 2 3 4 5 other" in machine.crontab.read_text()


def test_a_line_that_is_gone_is_put_back(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.declare()
    machine.run("apply")
    machine.crontab.unlink(missing_ok=True)
    (machine.units / "servegraph-nightly.timer").unlink(missing_ok=True)
    capsys.readouterr()
    assert machine.run("diff") == 1
    machine.run("apply")
    assert "nightly" in machine.lines()


def test_without_a_scheduler_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = Machine(tmp_path, "cron")
    machine.declare()
    with pytest.raises(ServegraphError) as caught:
        machine.run("apply")
    assert caught.value.code == "NO_SCHEDULER"
    assert machine.run("list") == 0
    assert machine.run("diff") == 1


def test_cron_runs_by_the_clock_of_the_machine_and_not_of_the_shell(
    cron: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = "Asia/Kathmandu" if machine_zone() != "Asia/Kathmandu" else "Asia/Tokyo"
    monkeypatch.setenv("TZ", elsewhere)
    cron.declare(time_zone=elsewhere)
    with pytest.raises(ServegraphError, match=f"cron runs by the clock of this machine, which is {machine_zone()}"):
        cron.run("apply")
    cron.declare()
    assert cron.run("apply") == 0


def test_what_is_paused_is_deleted_where_the_scheduler_is_gone(cron: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    cron.declare()
    cron.run("apply")
    cron.run("pause", "nightly")
    monkeypatch.setenv("PATH", str(cron.folder))
    assert cron.run("delete", "nightly") == 0
    assert not (cron.kept / "schedule.json").exists()


def test_a_crontab_that_cannot_be_read_is_not_overwritten(cron: Machine) -> None:
    cron.crontab.write_text("1 2 3 4 5 other\n")
    (cron.crontab.parent / "denied").touch()
    cron.declare()
    with pytest.raises(ServegraphError, match="not allowed") as caught:
        cron.run("apply")
    assert caught.value.code == "NO_SCHEDULER"
    assert cron.crontab.read_text() == "1 2 3 4 5 other\n"


def test_the_lines_of_others_are_kept_byte_for_byte(cron: Machine) -> None:
    others = b"# caf\xe9\x0c \xe2\x80\xa8\r\n1 2 3 4 5 other\n\n"
    cron.crontab.write_bytes(others)
    cron.declare()
    cron.run("apply")
    assert cron.crontab.read_bytes().startswith(others + b"# servegraph begin nightly\n0 3 * * 1 ")
    cron.run("delete", "nightly")
    assert cron.crontab.read_bytes() == others


@pytest.mark.parametrize("mark", ["begin", "end"])
def test_a_mark_that_is_gone_takes_no_lines_of_others_along(cron: Machine, mark: str) -> None:
    cron.declare()
    cron.run("apply")
    begin, job, end = cron.crontab.read_text().splitlines()
    between = [begin, job, "6 * * * * mine", end]
    between.remove(f"# servegraph {mark} nightly")
    if mark == "begin":  # then the job is told by the mark after it
        between = [job, end, "6 * * * * mine"]
    cron.crontab.write_text("\n".join(["7 * * * * first", *between, "8 * * * * last"]) + "\n")
    cron.declare(cron="0 5 * * *")
    cron.run("apply")
    others = ["7 * * * * first", "6 * * * * mine", "8 * * * * last"]
    assert cron.crontab.read_text().splitlines() == [*others, begin, job.replace("0 3 * * 1", "0 5 * * *"), end]
    cron.run("delete", "nightly")
    assert cron.crontab.read_text().splitlines() == others


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_crash_leaves_no_timer_of_a_schedule_that_says_it_is_paused(machine: Machine, verb: str) -> None:
    machine.declare()
    machine.run("apply")
    if verb == "resume":
        machine.run("pause", "nightly")
    # Whoever changes the timer dies with it: before a pause has taken effect, or when a resume has.
    program = machine.folder / "bin" / ("crontab" if machine.scheduler == "cron" else "systemctl")
    changes = {"cron": "-", "systemd": "*disable* | *daemon-reload*"}[machine.scheduler]
    dies = f'case "$*" in {changes}) kill -KILL $PPID;; esac'
    head, _, rest = program.read_text().partition("\n")
    before, after = ("", dies) if verb == "resume" else (dies, "")
    program.with_name("real").write_text(f"{head}\n{rest}")
    program.with_name("real").chmod(stat.S_IRWXU)
    program.write_text(f'{head}\n{before}\n"$(dirname "$0")/real" "$@" || exit\n{after}\n')
    script = "from servegraph_pipelines.cli import main; main()"
    command = [sys.executable, "-c", script, "schedule", verb, str(machine.file), "nightly"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    says_paused = json.loads((machine.kept / "schedule.json").read_text())["paused"]
    assert not says_paused or "nightly" not in machine.lines()


def test_what_cannot_be_resumed_is_still_paused(cron: Machine) -> None:
    cron.declare()
    cron.run("apply")
    cron.run("pause", "nightly")
    (cron.crontab.parent / "denied").touch()
    with pytest.raises(ServegraphError, match="not allowed"):
        cron.run("resume", "nightly")
    (cron.crontab.parent / "denied").unlink()
    assert json.loads((cron.kept / "schedule.json").read_text())["paused"]
    assert cron.lines() == ""


def test_relative_paths_are_those_of_the_file(machine: Machine) -> None:
    data(machine)
    (machine.folder / "own.py").touch()
    given = {"data": "sales.csv", "eval_data": "*.csv", "trainer": "own.py:train", "location": "served"}
    machine.declare(parameters=given, place={"scheduler": machine.scheduler, "directory": "kept"})
    machine.run("apply")
    content = json.loads((machine.kept / "schedule.json").read_text())["content"]
    wanted = {name: f"{machine.folder}/{value}" for name, value in given.items()}
    assert {name: content["parameters"][name] for name in given} == wanted
    assert content["folder"] == str(machine.folder)
    assert machine.run("diff") == 0


@pytest.mark.parametrize("verb", ["apply", "diff"])
@pytest.mark.parametrize(
    ("given", "code"), [({"data": "sales.csv"}, "NOT_FOUND"), ({"trainer": "own.py:train"}, "NO_TRAINER")]
)
def test_what_a_run_reads_is_missed_when_it_is_declared(
    cron: Machine, verb: str, given: dict[str, Any], code: str
) -> None:
    for name in ("sales.csv", "own.py"):  # where it is not meant
        Path(name).touch()
    cron.declare(parameters=given)
    with pytest.raises(ServegraphError, match=str(cron.folder / next(iter(given.values())).split(":")[0])) as caught:
        cron.run(verb)
    assert caught.value.code == code
    assert cron.lines() == ""
    assert cron.run("list") == 0
    assert cron.run("delete", "nightly") == 0


def test_a_model_of_own_data_is_called_after_it(cron: Machine) -> None:
    data(cron)
    for given, name in (({}, "sales"), ({"model_name": "census"}, "census")):
        cron.declare(parameters={"data": "sales.csv", **given})
        cron.run("apply")
        content = json.loads((cron.kept / "schedule.json").read_text())["content"]
        assert content["parameters"]["model_name"] == name


NO_SESSION = "Failed to get user: User ID 1000 is not logged in or lingering"
NO_BUS = "System has not been booted with systemd as init system (PID 1). Can't operate."


@pytest.mark.parametrize(
    ("answer", "warned"),
    [
        ("echo Linger=no", True),
        (f"echo '{NO_SESSION}' >&2; exit 1", True),
        ("echo Linger=yes", False),
        (f'echo "{NO_BUS}" >&2; exit 1', False),
    ],
)
def test_that_a_timer_ends_with_the_session_is_said(
    make_machine: Callable[[str], Machine], answer: str, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = make_machine("systemd")
    (machine.folder / "bin/loginctl").write_text(f"#!/bin/sh\n{answer}\n")
    machine.declare()
    machine.run("apply")
    said = capsys.readouterr()
    assert ("loginctl enable-linger" in said.err) == warned
    assert json.loads(said.out)["schedules"][0]["outcome"] == "created"
