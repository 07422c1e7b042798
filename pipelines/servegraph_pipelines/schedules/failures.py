"""Schedules whose runs fail: counted, paused, told. A service does none of that by itself, so `check` looks at it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from servegraph_pipelines.schedules.converge import Change, PastRun, Scheduler
from servegraph_pipelines.schedules.spec import Schedule

NOTIFY_TIMEOUT_S = 60
_LONGEST = 16_000  # characters of an error: the system takes no variable of more than 128 KiB


def check(scheduler: Scheduler, schedule: Schedule) -> Change:
    """Pause the schedule, and notify, where as many runs in a row have failed as its file allows."""
    found = scheduler.find(schedule.name)
    if not found:
        return Change(schedule.name, schedule.engine, "absent")
    newest, limit = found[-1], schedule.on_failure.pause_after
    if limit is None or newest.paused:
        return Change(schedule.name, schedule.engine, "unchanged")
    failures = in_a_row(scheduler.runs(newest))
    why = tuple(f"{one.run} failed: {one.message}" for one in failures)
    if len(failures) < limit:
        return Change(schedule.name, schedule.engine, "unchanged", why)
    scheduler.pause(newest)
    notify(schedule.on_failure.notify, schedule.name, "paused", failures[0].message)
    return Change(schedule.name, schedule.engine, "paused", why)


def in_a_row(runs: Sequence[PastRun]) -> list[PastRun]:
    """Return the newest runs that failed, up to the first that did not; `runs` are newest first."""
    failures: list[PastRun] = []
    for one in runs:
        if one.failed is False:
            break
        if one.failed:
            failures.append(one)
    return failures


def notify(command: Sequence[str], name: str, status: str, error: str) -> None:
    """Run the command of the file; that it fails is said and changes nothing."""
    if not command:
        return
    told = {"SERVEGRAPH_SCHEDULE": name, "SERVEGRAPH_STATUS": status, "SERVEGRAPH_ERROR": _in_environment(error)}
    try:
        subprocess.run(list(command), env={**os.environ, **told}, check=True, timeout=NOTIFY_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as exc:
        print(f"{name}: the notification failed: {exc}", file=sys.stderr)


def _in_environment(text: str) -> str:
    """Return what of a text a variable can hold."""
    return text[:_LONGEST].replace("\0", "").encode("utf-8", "replace").decode()
