"""`schedule` on this machine, through its own commands, and the runs that its timers start."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from servegraph.errors import ServegraphError
from servegraph_pipelines import flows
from servegraph_pipelines.cli import app
from servegraph_pipelines.schedules.failures import notify
from servegraph_pipelines.schedules.fire import fire
from servegraph_pipelines.schedules.pruning import KEPT_RUNS

FLOW = Path(flows.__file__).with_name("train_and_deploy.yaml")
# A crontab and a systemctl that keep what they are told, for machines that have neither.
CRONTAB = """#!/bin/sh
if [ "$1" != -l ]; then exec cat > "$HOME/crontab"; fi
if [ -e "$HOME/denied" ]; then echo "you are not allowed to use this program" >&2; exit 1; fi
[ -e "$HOME/crontab" ] || { echo "no crontab for me" >&2; exit 1; }
exec cat "$HOME/crontab"
"""
SYSTEMCTL = '#!/bin/sh\necho "$@" >> "$HOME/systemctl.log"\n'
LOGINCTL = "#!/bin/sh\necho Linger=yes\n"


@dataclass
class Machine:
    """This machine, as a user with a home of its own finds it; `file` declares one schedule, nightly."""

    folder: Path
    scheduler: str

    @property
    def file(self) -> Path:
        return self.folder / "s.yaml"

    @property
    def crontab(self) -> Path:
        return self.folder / "home/crontab"

    @property
    def units(self) -> Path:
        return self.folder / "home/.config/systemd/user"

    @property
    def kept(self) -> Path:
        return self.folder / "kept/nightly"

    def declare(self, **changes: Any) -> None:
        row = {"name": "nightly", "cron": "0 3 * * MON", "engine": "local", "pipeline": str(FLOW)}
        row["place"] = {"scheduler": self.scheduler, "directory": str(self.kept.parent)}
        row["parameters"] = {"seed": 3, "hyperparameters": {"epochs": 2}}
        self.file.write_text(yaml.safe_dump({"schedules": [row | changes]}))

    def run(self, verb: str, *names: str) -> int:
        return app.main(["schedule", verb, str(self.file), *names, "--json"], standalone_mode=False)

    def lines(self) -> str:
        files = [self.crontab, self.units / "servegraph-nightly.timer"]
        return "".join(file.read_text() for file in files if file.exists())


@pytest.fixture(name="make_machine")
def fixture_make_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Machine]:
    def make(scheduler: str) -> Machine:
        home, programs = tmp_path / "home", tmp_path / "bin"
        home.mkdir()
        programs.mkdir()
        for name, content in (("crontab", CRONTAB), ("systemctl", SYSTEMCTL), ("loginctl", LOGINCTL)):
            (programs / name).write_text(content)
            (programs / name).chmod(stat.S_IRWXU)
        for name, value in (("HOME", str(home)), ("PATH", f"{programs}:{os.environ['PATH']}"), ("TZ", "UTC")):
            monkeypatch.setenv(name, value)
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(home)  # where a timer starts runs
        return Machine(tmp_path, scheduler)

    return make


@pytest.fixture(params=["cron", "systemd"])
def machine(request: pytest.FixtureRequest, make_machine: Callable[[str], Machine]) -> Machine:
    return make_machine(request.param)


@pytest.fixture
def cron(make_machine: Callable[[str], Machine]) -> Machine:
    return make_machine("cron")


def data(machine: Machine) -> Path:
    """Make a table beside the file."""
    path = machine.folder / "sales.csv"
    path.write_text("length,kind\n1,no\n2,yes\n")
    return path


def outcome(capsys: pytest.CaptureFixture[str]) -> Any:
    (change,) = json.loads(capsys.readouterr().out)["schedules"]
    return change["outcome"]


def test_on_this_machine(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.crontab.write_text("1 2 3 4 5 other\n")
    machine.declare()
    machine.run("apply")
    assert outcome(capsys) == "created"
    wanted = "0 3 * * 1 " if machine.scheduler == "cron" else "OnCalendar=Mon *-*-* 03:00:00 UTC"
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
    monkeypatch.setenv("TZ", "UTC")
    machine = Machine(tmp_path, "cron")
    machine.declare()
    with pytest.raises(ServegraphError) as caught:
        machine.run("apply")
    assert caught.value.code == "NO_SCHEDULER"
    assert machine.run("list") == 0
    assert machine.run("diff") == 1


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
