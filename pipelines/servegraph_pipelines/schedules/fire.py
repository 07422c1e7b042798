"""One run of a schedule on this machine: `python -m servegraph_pipelines.schedules.fire FOLDER`, as a timer starts it.

Exits 0 where the run succeeded or another one is still running, 1 where it failed, 130 where it was interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from servegraph.errors import Refusal, ServegraphError, StorageError
from servegraph.storage.local import answering
from servegraph_pipelines import flows, foresight
from servegraph_pipelines.run import LocalRequest, Run, run
from servegraph_pipelines.run_report import finish
from servegraph_pipelines.schedules.failures import notify
from servegraph_pipelines.schedules.local import DECLARED, OUTPUT, PIPELINE, STATE, LocalSchedules, write_json
from servegraph_pipelines.schedules.pruning import prune
from servegraph_pipelines.step_errors import own_error


def fire(folder: Path) -> int:
    """Run once, remember how it went, pause after too many failures, and notify of each, whatever failed."""
    try:
        declared = json.loads((folder / DECLARED).read_text(encoding="utf-8"))
        name, content = declared["name"], declared["content"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        # Nobody knows whom to tell: what started this keeps what is printed.
        print(f"{folder.name}: {folder / DECLARED} cannot be read: {exc}. Apply the schedule again.", file=sys.stderr)
        return 1
    try:
        state = _run(folder, content)
        if state.interrupted:  # by who runs the machine: no failure of the schedule's
            return 130
        error = state.error
    except Exception as raised:
        error = own_error(raised) or _unexpected(raised)
        if error.code == "OUTPUT_IN_USE":
            print(f"{name}: the run before is still going on.")
            return 0
    failures, error = _remember(folder, error)
    _make_room(folder, name)
    if error is None:
        return 0
    print(f"{name}: {error}", file=sys.stderr)
    limit = content["pause_after"]
    is_paused = bool(limit) and failures >= limit and _pause(folder, declared)
    notify(content["notify"], name, "paused" if is_paused else "failed", str(error))
    return 1


def _unexpected(raised: Exception) -> ServegraphError:
    """Return the error of a defect, whose traceback is printed."""
    traceback.print_exception(raised)
    fix = "Report the traceback that was printed."
    return Refusal(f"{type(raised).__name__}: {raised}", code="UNEXPECTED", fix=fix)


def _run(folder: Path, content: Mapping[str, Any]) -> Run:
    at = content.get("folder", folder)  # of the file that names paths; what was applied by an older version has none
    with answering("read", Path(at)):
        os.chdir(at)
    pipeline = folder / PIPELINE
    specification = flows.read(pipeline)
    foresight.check_files(specification, content["parameters"])
    state = run(folder / OUTPUT, LocalRequest(str(pipeline), specification, content["parameters"]), lambda _: None)
    finish(state)
    return state


def _remember(folder: Path, error: ServegraphError | None) -> tuple[int, ServegraphError | None]:
    """Write how the run went. Return how many have failed in a row, and the error, which may be that of writing."""
    file = folder / STATE
    before: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(file.read_text(encoding="utf-8"))
    failures = int(before.get("failures", 0)) + 1 if error else 0
    ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        write_json(file, {"failures": failures, "ended": ended, "error": str(error) if error else None})
    except StorageError as exc:
        error = error or exc
    return failures, error


def _make_room(folder: Path, name: str) -> None:
    """Remove old runs; that it cannot be done is said, and makes no run a failure."""
    try:
        prune(folder / OUTPUT / "pipeline")
    except OSError as exc:
        print(f"{name}: an old run cannot be removed: {exc}", file=sys.stderr)


def _pause(folder: Path, declared: Mapping[str, Any]) -> bool:
    """Pause the schedule. Return whether it is; why not is said, and keeps nobody from being told of the failure."""
    scheduler = LocalSchedules(folder.parent, declared["timing"]["timer"])
    try:
        for found in scheduler.find(declared["name"]):
            scheduler.pause(found)
    except (ServegraphError, OSError) as exc:
        print(f"{declared['name']} cannot be paused: {exc}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(fire(Path(sys.argv[1])))
