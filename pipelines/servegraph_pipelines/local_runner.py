"""The child process of `servegraph run`: one pipeline run on kfp.local, in a process group of its own.

Started as `python -m servegraph_pipelines.local_runner FD`, with one JSON line on stdin:
`{"pipeline_root", "runner", "parameters"}`. Each line on the file descriptor FD is a JSON event about a task. kfp.local
prints everything else; the parent sends that to a log file. When stdin closes, the parent is gone, and the group ends.

kfp.local 2.17 does things that a user's run must not meet. It rewrites the text `python3` in every argument
(`replace_interpreter`) and deletes `workspace_root` after a run (a throwaway one is given); that it takes a gs:// root
for a local directory is refused by the parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from kfp import local
from kfp.local import subprocess_task_handler, task_dispatcher

from servegraph_pipelines.train_and_deploy import train_and_deploy


def main() -> None:
    """Run the pipeline that stdin describes; exit 0 when every task succeeded."""
    events = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    subprocess_task_handler.replace_python_executable = replace_interpreter
    task_dispatcher.run_single_task_implementation = _reporting(
        task_dispatcher.run_single_task_implementation, lambda event: print(json.dumps(event), file=events)
    )
    runner = local.DockerRunner() if request["runner"] == "docker" else local.SubprocessRunner(use_venv=False)
    local.init(
        runner=runner,
        pipeline_root=request["pipeline_root"],
        workspace_root=tempfile.mkdtemp(prefix="servegraph-workspace-"),
        raise_on_error=True,
    )
    try:
        train_and_deploy(**request["parameters"])
    except RuntimeError as exc:  # what kfp.local raises for a failed task; the task's own error is in the log
        print(exc)
        sys.exit(1)


def replace_interpreter(command: list[str], interpreter: str) -> list[str]:
    """Return the command with `python3 -m` run by `interpreter`, leaving every other `python3` as it is.

    kfp.local replaces the word in all arguments, so a parameter or path that contains it reaches the task changed.
    Only the shell line that starts the executor names the interpreter.
    """
    return [part.replace("python3 -m", f"{interpreter} -m") if "executor_main" in part else part for part in command]


def _reporting(run_task: Callable[..., Any], report: Callable[[dict[str, Any]], None]) -> Callable[..., Any]:
    """Return `run_task` with an event before and after each task."""

    def run(**arguments: Any) -> Any:
        name = arguments["component_name"].removeprefix("comp-")
        report({"task": name, "event": "started", "time": time.time()})
        status = "FAILURE"
        try:
            outputs, task_status = run_task(**arguments)
            status = task_status.name
            return outputs, task_status
        finally:
            report({"task": name, "event": status.lower(), "time": time.time()})

    return run


def _end_with_parent() -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main()
