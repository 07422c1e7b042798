"""One run of a schedule on this machine: `python -m servegraph_pipelines.schedules.fire FOLDER`, as a timer starts it.

Exits 0 where the run succeeded or another one is still running, 1 where it failed, 130 where it was interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from servegraph.errors import ServegraphError
from servegraph_pipelines import flows
from servegraph_pipelines.run import LocalRequest, run
from servegraph_pipelines.run_report import finish
from servegraph_pipelines.schedules.failures import notify
from servegraph_pipelines.schedules.local import DECLARED, PIPELINE, STATE, LocalSchedules, write_json


def fire(folder: Path) -> int:
    """Run once, remember how it went, pause after too many failures, and notify."""
    declared = json.loads((folder / DECLARED).read_text(encoding="utf-8"))
    content = declared["content"]
    os.chdir(content["folder"])  # what the file names by a relative path is relative to it
    pipeline = folder / PIPELINE
    request = LocalRequest(str(pipeline), flows.read(pipeline), content["parameters"])
    error: ServegraphError | None = None
    try:
        state = run(folder / "output", request, lambda _: None)
        finish(state)
        if state.interrupted:  # by who runs the machine: no failure of the schedule's
            return 130
        error = state.error
    except ServegraphError as raised:
        if raised.code == "OUTPUT_IN_USE":
            print(f"{declared['name']}: the run before is still going on.")
            return 0
        error = raised
    failures = _remember(folder, error)
    paused = bool(content["pause_after"]) and failures >= content["pause_after"]
    if error is None:
        return 0
    if paused:
        scheduler = LocalSchedules(folder.parent, declared["timing"]["timer"])
        for found in scheduler.find(declared["name"]):
            scheduler.pause(found)
    print(f"{declared['name']}: {error}", file=sys.stderr)
    notify(content["notify"], declared["name"], "paused" if paused else "failed", str(error))
    return 1


def _remember(folder: Path, error: ServegraphError | None) -> int:
    """Write how the run went, and return how many have failed in a row."""
    file = folder / STATE
    before: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(file.read_text(encoding="utf-8"))
    failures = int(before.get("failures", 0)) + 1 if error else 0
    ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_json(file, {"failures": failures, "ended": ended, "error": str(error) if error else None})
    return failures


if __name__ == "__main__":
    sys.exit(fire(Path(sys.argv[1])))
