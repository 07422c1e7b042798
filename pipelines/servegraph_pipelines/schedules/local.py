"""Schedules on this machine: a systemd timer of the user, or a line of the user's crontab.

Each has a folder with what it runs, compiled, so that a changed pipeline is seen, and the record of its runs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from servegraph.errors import ServegraphError, StorageError
from servegraph_pipelines.schedules.converge import Found, PastRun
from servegraph_pipelines.schedules.spec import Schedule
from servegraph_pipelines.schedules.timers import FIRE, Crontab, Kind, SystemdTimer, Timer

DECLARED, PIPELINE, STATE, OUTPUT = "schedule.json", "pipeline.yaml", "state.json", "output"


class LocalSchedules:
    """The schedules of this user below one directory."""

    can_patch_timing = False

    def __init__(self, directory: Path | None, kind: Kind | None) -> None:
        """Take the directory (the user's data directory if None) and the timer (what the machine has if None)."""
        self._directory = directory or data_home() / "servegraph/schedules"
        self._kind: Kind = kind or ("systemd" if Path("/run/systemd/system").is_dir() else "cron")
        self._timer: Timer = SystemdTimer() if self._kind == "systemd" else Crontab()

    def content(self, schedule: Schedule) -> Any:
        """Return the digest of the pipeline, its parameters, where it runs, and what happens on failures."""
        on_failure = schedule.on_failure
        return {
            "pipeline": schedule.request.specification.digest,
            "parameters": dict(schedule.request.parameters),
            "folder": str(schedule.folder),
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
            raise StorageError(
                f"The schedule {self._directory / name} cannot be read: {exc}.",
                fix="Remove its directory, then apply the schedule again.",
            ) from exc
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
            raise StorageError(
                f"The schedule cannot be written to {folder}: {exc}.",
                code="CANNOT_WRITE",
                fix="See that the directory can be written and has space left.",
            ) from exc
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
        """Start no further runs. The timer goes first: cut off in between, nothing fires that says it is paused."""
        self._timer.remove(found.name)
        write_json(Path(found.id) / DECLARED, {**found.body, "paused": True})

    def resume(self, found: Found, schedule: Schedule) -> None:
        """Start runs again; failures before do not count any more. The timer comes last, as it goes first."""
        file = Path(found.id) / DECLARED
        (Path(found.id) / STATE).unlink(missing_ok=True)
        write_json(file, {**found.body, "paused": False})
        try:
            self._timer.set(found.name, found.body["timing"], command(Path(found.id)))
        except BaseException:
            write_json(file, {**found.body, "paused": True})
            raise


def command(folder: Path) -> list[str]:
    """Return the command that runs a schedule once."""
    return [sys.executable, "-m", FIRE, str(folder)]


def data_home() -> Path:
    """Return where programs of this user keep their data."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")


def write_json(path: Path, document: Any) -> None:
    """Write a file that is whole or not there. Raises `StorageError`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(document, indent=2), encoding="utf-8")
        partial.replace(path)
    except OSError as exc:
        raise StorageError(
            f"{path} cannot be written: {exc}.",
            code="CANNOT_WRITE",
            fix="See that the directory can be written and has space left.",
        ) from exc
