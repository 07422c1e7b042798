"""What starts the runs of schedules on this machine: a systemd timer of the user, or a line of the user's crontab."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, Protocol

from servegraph.errors import InputError, Refusal, StorageError

Kind = Literal["systemd", "cron"]
FIRE = "servegraph_pipelines.schedules.fire"  # the module that runs a schedule once
_FIRES = f"-m {FIRE} "
_NO_SESSION = re.compile(r"is not logged in or lingering")
# How `crontab -l` says that there is none, exiting 1: all that are made after Vixie's, and BusyBox's.
_NO_CRONTAB = re.compile(r"no crontab for |can't open '[^/']+': No such file")


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
            raise StorageError(
                f"The timer cannot be written to {folder}: {exc}.",
                code="CANNOT_WRITE",
                fix="See that the directory can be written and has space left.",
            ) from exc
        call(["systemctl", "--user", "daemon-reload"])
        call(["systemctl", "--user", "enable", "--now", f"servegraph-{name}.timer"])
        _warn_unless_lingering(name)

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


def _warn_unless_lingering(name: str) -> None:
    """Say on stderr that the timer ends with the user's last session, where systemd says so; elsewhere it is not known.

    Of a user without a session `loginctl` has no property, and says in words that he does not linger either.
    """
    if shutil.which("loginctl") is None:
        return
    with contextlib.suppress(Refusal):
        said = call(["loginctl", "show-user", str(os.getuid()), "--property=Linger"], nothing=_NO_SESSION)
        if said.strip() in ("Linger=no", ""):
            what = f"warning: {name} starts no runs while you are logged out. Fix: loginctl enable-linger"
            print(what, file=sys.stderr)


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
        begin, end = _marks(name)
        self._write([*self._sorted_out(name)[1], begin, line, end])

    def remove(self, name: str) -> None:
        """Take the line out; where there is no crontab there is none."""
        if not shutil.which("crontab"):
            return
        own, others = self._sorted_out(name)
        if own:
            self._write(others)

    def has(self, name: str) -> bool:
        """Whether the line is there."""
        return bool(shutil.which("crontab")) and any(_FIRES in line for line in self._sorted_out(name)[0])

    def _sorted_out(self, name: str) -> tuple[list[str], list[str]]:
        """Return the lines of the schedule and all others.

        Its job is told by itself, not by what is between the marks: one of these may be gone, and what else is there
        is the user's.
        """
        marks, lines = _marks(name), self._lines()
        own: list[str] = []
        others: list[str] = []
        for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
            is_job = _FIRES in line and (before == marks[0] or after == marks[1])
            (own if line in marks or is_job else others).append(line)
        return own, others

    @staticmethod
    def _lines() -> list[str]:
        lines = call(["crontab", "-l"], nothing=_NO_CRONTAB).split("\n")
        return lines if lines[-1] else lines[:-1]

    @staticmethod
    def _write(lines: list[str]) -> None:
        call(["crontab", "-"], "".join(f"{line}\n" for line in lines))


def _marks(name: str) -> tuple[str, str]:
    return f"# servegraph begin {name}", f"# servegraph end {name}"


def call(line: list[str], given: str | None = None, *, nothing: re.Pattern[str] | None = None) -> str:
    """Return what a command prints: nothing where it fails with the words `nothing`. Other bytes than UTF-8 are kept.

    Raises:
        Refusal: it is not there or fails (code `NO_SCHEDULER`).
    """
    if shutil.which(line[0]) is None:
        fix = f"Install {line[0]}, or choose the other: place: {{scheduler: systemd}} or cron."
        raise Refusal(f"This machine has no {line[0]}.", code="NO_SCHEDULER", fix=fix)
    content = None if given is None else given.encode("utf-8", "surrogateescape")
    english = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(line, input=content, capture_output=True, check=False, env=english)
    if not done.returncode:
        return done.stdout.decode("utf-8", "surrogateescape")
    said = done.stderr.decode("utf-8", "replace").strip()
    if nothing is not None and nothing.search(said):
        return ""
    what = f"{shlex.join(line)} failed: {said[:300]}"
    raise Refusal(what, code="NO_SCHEDULER", fix="Mend what it says, then do this again.")


def machine_zone() -> str:
    """Return the time zone that cron runs by: the machine's. TZ of this shell is none that cron is told."""
    zone = _started_in(Path("/proc/1/environ")) or zone_of(Path("/etc"))
    return "UTC" if zone in ("Etc/UTC", "Etc/UCT", "Universal", "Zulu") else zone


def _started_in(environ: Path) -> str:
    """Return TZ as the first process of a container may have been given it, which all others then have."""
    with contextlib.suppress(OSError):  # most users may not read it
        for variable in environ.read_bytes().split(b"\0"):
            if variable.startswith(b"TZ="):
                return os.fsdecode(variable[3:]).removeprefix(":")
    return ""


def zone_of(etc: Path) -> str:
    """Return what a machine's files say: what `localtime` leads to, or where that is a copy, Debian's `timezone`."""
    link, name = etc / "localtime", etc / "timezone"
    if zone := os.path.realpath(link).partition("zoneinfo/")[2]:
        return zone
    written = name.read_text(encoding="utf-8", errors="replace").strip() if link.exists() and name.is_file() else ""
    return written or "UTC"
