"""Schedules on this machine: a systemd timer of the user, or a line of the user's crontab.

Each has a folder with what it runs, compiled, so that a changed pipeline is seen, and the record of its runs.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, Protocol

from servegraph.errors import InputError, Refusal, ServegraphError, StorageError
from servegraph_pipelines.schedules.converge import Found, PastRun
from servegraph_pipelines.schedules.spec import Schedule

Kind = Literal["systemd", "cron"]
DECLARED, PIPELINE, STATE = "schedule.json", "pipeline.yaml", "state.json"


class Timer(Protocol):
    """What starts runs at their times."""

    def check(self, timing: dict[str, Any]) -> None:
        """Raise `InputError` (code `NOT_FOR_ENGINE`) where it cannot keep such times."""

    def set(self, name: str, timing: dict[str, Any], command: list[str]) -> None:
        """Start runs at these times, in place of what there is of the name."""

    def remove(self, name: str) -> None:
        """Start no more runs; gone already is fine."""

    def has(self, name: str) -> bool:
        """Whether it starts runs under the name."""


class LocalSchedules:
    """The schedules of this user below one directory."""

    can_patch_timing = False

    def __init__(self, directory: Path | None, kind: Kind | None) -> None:
        """Take the directory (the user's data directory if None) and the timer (what the machine has if None)."""
        self._directory = directory or data_home() / "servegraph/schedules"
        self._kind: Kind = kind or ("systemd" if Path("/run/systemd/system").is_dir() else "cron")
        self._timer: Timer = SystemdTimer() if self._kind == "systemd" else Crontab()

    def content(self, schedule: Schedule) -> Any:
        """Return the digest of the pipeline, its parameters, and what happens on failures."""
        on_failure = schedule.on_failure
        return {
            "pipeline": schedule.request.specification.digest,
            "parameters": dict(schedule.request.parameters),
            "pause_after": on_failure.pause_after,
            "notify": list(on_failure.notify),
        }

    def timing(self, schedule: Schedule) -> Any:
        """Return when it runs, in both forms. Raises `InputError` where the timer cannot keep it."""
        timing = schedule.timing
        found = {
            "cron": timing.cron.five(),
            "calendars": list(timing.cron.calendars(timing.time_zone)),
            "time_zone": timing.time_zone,
            "catch_up": timing.catch_up,
            "timer": self._kind,
        }
        self._timer.check(found)
        return found

    def find(self, name: str) -> list[Found]:
        """Return the schedule of that name; one whose timer is gone has no timing."""
        try:
            document = json.loads((self._directory / name / DECLARED).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as exc:
            raise StorageError(f"The schedule {self._directory / name} cannot be read: {exc}.") from exc
        paused = bool(document["paused"])
        timing = document["timing"] if paused or self._timer.has(name) else {}
        return [Found(str(self._directory / name), name, document["content"], timing, paused, document)]

    def create(self, schedule: Schedule, *, paused: bool) -> None:
        """Write what it runs, then set the timer."""
        timing = self.timing(schedule)
        folder = self._directory / schedule.name
        document = {"name": schedule.name, "content": self.content(schedule), "timing": timing, "paused": paused}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / PIPELINE).write_text(schedule.request.specification.to_yaml(), encoding="utf-8")
        except OSError as exc:
            raise StorageError(f"The schedule cannot be written to {folder}: {exc}.", code="CANNOT_WRITE") from exc
        write_json(folder / DECLARED, document)
        try:
            if not paused:
                self._timer.set(schedule.name, timing, command(folder))
        except ServegraphError:
            (folder / DECLARED).unlink()  # there is no such schedule
            raise

    def patch(self, found: Found, schedule: Schedule) -> None:
        """Not there."""
        raise NotImplementedError

    def remake(self, found: Found) -> None:
        """Make a schedule again as it was found."""
        folder = Path(found.id)
        write_json(folder / DECLARED, found.body)
        if not found.paused:
            self._timer.set(found.name, found.body["timing"], command(folder))

    def runs(self, found: Found) -> list[PastRun]:
        """None: each run here counts its own failures (`fire`)."""
        return []

    def delete(self, found: Found) -> None:
        """Remove it; its runs, their history and what they deployed stay."""
        self._timer.remove(found.name)
        (Path(found.id) / DECLARED).unlink(missing_ok=True)

    def pause(self, found: Found) -> None:
        """Start no further runs."""
        write_json(Path(found.id) / DECLARED, {**found.body, "paused": True})
        self._timer.remove(found.name)

    def resume(self, found: Found, schedule: Schedule) -> None:
        """Start runs again; failures before do not count any more."""
        (Path(found.id) / STATE).unlink(missing_ok=True)
        self._timer.set(found.name, found.body["timing"], command(Path(found.id)))
        write_json(Path(found.id) / DECLARED, {**found.body, "paused": False})


class SystemdTimer:
    """Units of the user's systemd."""

    def check(self, timing: dict[str, Any]) -> None:
        """All can be kept."""

    def set(self, name: str, timing: dict[str, Any], command: list[str]) -> None:
        """Write service and timer, and enable the timer."""
        folder = self._folder()
        calendars = "\n".join(f"OnCalendar={line}" for line in timing["calendars"])
        line = " ".join('"' + part.replace("%", "%%").replace("$", "$$").replace('"', '\\"') + '"' for part in command)
        service = f"[Unit]\nDescription=servegraph schedule {name}\n\n[Service]\nType=oneshot\nExecStart={line}\n"
        persistent = "true" if timing["catch_up"] else "false"
        timer = (
            f"[Unit]\nDescription=servegraph schedule {name}\n\n"
            f"[Timer]\n{calendars}\nPersistent={persistent}\n\n[Install]\nWantedBy=timers.target\n"
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"servegraph-{name}.service").write_text(service, encoding="utf-8")
            (folder / f"servegraph-{name}.timer").write_text(timer, encoding="utf-8")
        except OSError as exc:
            raise StorageError(f"The timer cannot be written to {folder}: {exc}.", code="CANNOT_WRITE") from exc
        call(["systemctl", "--user", "daemon-reload"])
        call(["systemctl", "--user", "enable", "--now", f"servegraph-{name}.timer"])

    def remove(self, name: str) -> None:
        """Disable the timer and remove both units."""
        units = [self._folder() / f"servegraph-{name}.{kind}" for kind in ("timer", "service")]
        if not units[0].exists():
            return
        call(["systemctl", "--user", "disable", "--now", units[0].name])
        for unit in units:
            unit.unlink(missing_ok=True)
        call(["systemctl", "--user", "daemon-reload"])

    def has(self, name: str) -> bool:
        """Whether the timer is there."""
        return (self._folder() / f"servegraph-{name}.timer").exists()

    @staticmethod
    def _folder() -> Path:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"


class Crontab:
    """A line of the user's crontab between two marks."""

    def check(self, timing: dict[str, Any]) -> None:
        """Refuse a time zone that is not the machine's, and catching up: cron knows neither."""
        here = machine_zone()
        if timing["time_zone"] != here:
            raise InputError(
                f"cron runs by the clock of this machine, which is {here}, not {timing['time_zone']}.",
                code="NOT_FOR_ENGINE",
                fix=f"Write time_zone: {here}, or use a systemd timer: place: {{scheduler: systemd}}.",
            )
        if timing["catch_up"]:
            raise InputError("cron makes up for no missed runs.", code="NOT_FOR_ENGINE", fix="catch_up: false")

    def set(self, name: str, timing: dict[str, Any], command: list[str]) -> None:
        """Put the line in."""
        line = f"{timing['cron']} {shlex.join(command)}".replace("%", "\\%")
        self._write([*self._others(name), *self._marks(name, line)])

    def remove(self, name: str) -> None:
        """Take the line out."""
        if self.has(name):
            self._write(self._others(name))

    def has(self, name: str) -> bool:
        """Whether the line is there."""
        return bool(shutil.which("crontab")) and self._marks(name, "")[0] in self._lines()

    @staticmethod
    def _marks(name: str, line: str) -> list[str]:
        return [f"# servegraph begin {name}", line, f"# servegraph end {name}"]

    def _others(self, name: str) -> list[str]:
        begin, _, end = self._marks(name, "")
        kept, inside = [], False
        for line in self._lines():
            inside = inside or line == begin
            if not inside:
                kept.append(line)
            inside = inside and line != end
        return kept

    @staticmethod
    def _lines() -> list[str]:
        # Without a crontab, `crontab -l` says so and exits 1.
        return call(["crontab", "-l"], may_fail=True).splitlines()

    @staticmethod
    def _write(lines: list[str]) -> None:
        call(["crontab", "-"], "\n".join(lines) + "\n" if lines else "")


def command(folder: Path) -> list[str]:
    """Return the command that runs a schedule once."""
    return [sys.executable, "-m", "servegraph_pipelines.schedules.fire", str(folder)]


def call(line: list[str], given: str | None = None, *, may_fail: bool = False) -> str:
    """Return what a command prints. Raises `Refusal` (code `NO_SCHEDULER`) where it is not there or fails."""
    if shutil.which(line[0]) is None:
        fix = f"Install {line[0]}, or choose the other: place: {{scheduler: systemd}} or cron."
        raise Refusal(f"This machine has no {line[0]}.", code="NO_SCHEDULER", fix=fix)
    done = subprocess.run(line, input=given, capture_output=True, text=True, check=False)
    if done.returncode and not may_fail:
        raise Refusal(f"{shlex.join(line)} failed: {done.stderr.strip()[:300]}", code="NO_SCHEDULER")
    return done.stdout


def data_home() -> Path:
    """Return where programs of this user keep their data."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")


def machine_zone() -> str:
    """Return the time zone of this machine's clock."""
    if zone := os.environ.get("TZ", "").removeprefix(":"):
        return zone
    link = Path("/etc/localtime")
    target = str(link.resolve()) if link.exists() else ""
    zone = target.partition("zoneinfo/")[2] or "UTC"
    return "UTC" if zone in ("Etc/UTC", "Etc/UCT", "Universal", "Zulu") else zone


def write_json(path: Path, document: Any) -> None:
    """Write a file that is whole or not there. Raises `StorageError`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(document, indent=2), encoding="utf-8")
        partial.replace(path)
    except OSError as exc:
        raise StorageError(f"{path} cannot be written: {exc}.", code="CANNOT_WRITE") from exc
