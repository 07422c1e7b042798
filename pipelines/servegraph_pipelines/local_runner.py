"""The child process of `servegraph run`: one pipeline run on kfp.local, in a process group of its own.

Started as `python -m servegraph_pipelines.local_runner FD`, with one JSON line on stdin: `{"pipeline", "pipeline_root",
"runner", "output_dir", "docker_network", "cache", "parameters"}`. Each line on the file descriptor FD is a JSON event
about a task. kfp.local prints everything else; the parent sends that to a log file. When stdin closes, the parent is
gone, and the group ends.

kfp.local 2.17 does things that a user's run must not meet. It rewrites the text `python3` in every argument
(`replace_interpreter`), takes a condition on a named output of a task for false (`resolve_channel`), and deletes
`workspace_root` after a run (a throwaway one is given); that it takes a gs:// root for a local directory is refused by
the parent. In Docker it takes a container whose exit code it lost for a success, and fetches images that are there
(`_in_container`, `run_container`).
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kfp import components, local
from kfp.local import subprocess_task_handler, task_dispatcher
from kfp.local.orchestrator import enhanced_dag_orchestrator

from servegraph.storage.directory import local_path
from servegraph.trained.trainer import source_file
from servegraph_pipelines import flows
from servegraph_pipelines.run import PLACES
from servegraph_pipelines.step_cache import StepCache
from servegraph_pipelines.step_keys import installed_code


def main() -> None:
    """Run the pipeline that stdin describes; exit 0 when every task succeeded."""
    events = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    subprocess_task_handler.replace_python_executable = replace_interpreter
    cache = StepCache(Path(request["pipeline_root"]), takes=request["cache"])
    subprocess_task_handler.run_local_subprocess = _in_process(cache, subprocess_task_handler.run_local_subprocess)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a container ends with its step
    conditions = enhanced_dag_orchestrator.ConditionEvaluator
    conditions._resolve_pipeline_channel = staticmethod(resolve_channel)
    task_dispatcher.run_single_task_implementation = _reporting(
        task_dispatcher.run_single_task_implementation, lambda event: print(json.dumps(event), file=events), cache
    )
    runner = _docker(request, cache) if request["runner"] == "docker" else local.SubprocessRunner(use_venv=False)
    local.init(
        runner=runner,
        pipeline_root=request["pipeline_root"],
        workspace_root=tempfile.mkdtemp(prefix="servegraph-workspace-"),
        raise_on_error=True,
    )
    reference = request["pipeline"]
    is_file = reference.endswith((".yaml", ".yml"))
    pipeline = components.load_component_from_file(reference) if is_file else flows.function(reference)
    try:
        pipeline(**request["parameters"])
    except RuntimeError as exc:  # what kfp.local raises for a failed task; the task's own error is in the log
        print(exc)
        sys.exit(1)


def _docker(request: dict[str, Any], cache: StepCache) -> Any:
    """Return the runner for containers that see the output directory and the local files that parameters name.

    They run as the directory's owner, with a read-only root file system: what a step writes is its output, or in /tmp.
    kfp.local itself mounts the pipeline root alone, and runs them as the image says.
    """
    from docker.types import Mount
    from kfp.local import docker_task_handler  # it imports docker, which only this runner needs

    docker_task_handler.run_docker_container = _in_container(cache)
    output_dir = request["output_dir"]
    owner = Path(output_dir).stat()
    parameters = request["parameters"]
    named = [path for path in named_paths(parameters) if not path.is_relative_to(output_dir)]
    written = [str(parameters[name]) for name in PLACES if name in parameters]
    bound = {str(path): str(path) not in written for path in named}
    mounts = [Mount(path, path, type="bind", read_only=read_only) for path, read_only in bound.items()]
    network = {"network_mode": request["docker_network"]} if request["docker_network"] else {}
    return local.DockerRunner(
        user=f"{owner.st_uid}:{owner.st_gid}",
        mounts=[Mount(output_dir, output_dir, type="bind"), *mounts],
        read_only=True,
        tmpfs={"/tmp": "exec"},  # noqa: S108  in the container
        **network,
    )


def named_paths(value: Any) -> Iterator[Path]:
    """Yield what the texts in a value name by full path on this machine: of a pattern, the folder above its matches."""
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from named_paths(part)
    elif isinstance(value, str):
        text = source_file(value) or value
        if text.startswith("file://"):
            text = str(local_path(text))
        if not text.startswith("/"):
            return
        if os.path.exists(text):  # noqa: PTH110  Path.exists raises on a text that is too long for a path
            yield Path(text)
        elif any(glob.iglob(text, recursive=True)):  # noqa: PTH207  Path.glob takes no absolute one
            yield next(parent for parent in Path(text).parents if not glob.has_magic(str(parent)))


def _in_process(cache: StepCache, run: Callable[..., int]) -> Callable[..., int]:
    """Return what runs a step in a process, unless an earlier run has it."""

    def run_process(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        given = [*full_command, *sorted(f"{name}={value}" for name, value in (env_vars or {}).items())]
        return cache.run(given, installed_code(), lambda: run(full_command, env_vars))

    return run_process


def _in_container(cache: StepCache) -> Callable[..., int]:
    """Return what runs a step in its image, unless an earlier run has it; the image is fetched if it is not there."""

    def run(client: Any, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any) -> int:
        from docker.errors import ImageNotFound

        try:
            found = client.images.get(image)
        except ImageNotFound:
            print(f"Fetching the image {image} ...")
            found = client.images.pull(image)
        given = [*command, *sorted(f"{name}={value}" for name, value in arguments.get("environment", {}).items())]
        return cache.run(given, found.id, lambda: run_container(client, image, command, volumes, **arguments))

    return run


def run_container(client: Any, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any) -> int:
    """Run a step's container to its end and return its exit code."""
    container = client.containers.create(image=image, command=command, volumes=volumes, **arguments)
    try:
        container.start()
        for part in container.logs(stream=True, follow=True):
            print(part.decode("utf-8", "replace"), end="")
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


def replace_interpreter(command: list[str], interpreter: str) -> list[str]:
    """Return the command with `python3 -m` run by `interpreter`, leaving every other `python3` as it is.

    kfp.local replaces the word in all arguments, so a parameter or path that contains it reaches the task changed.
    Only the shell line that starts the executor names the interpreter.
    """
    return [part.replace("python3 -m", f"{interpreter} -m") if "executor_main" in part else part for part in command]


def resolve_channel(channel: str, io_store: Any) -> Any:
    """Return the value that a condition names, like `pipelinechannel--check-data-decision`, or None.

    It is an input of the group that the condition stands in, or an output of a task beside it: the name alone does not
    say where that of the task ends, so each dash is tried. kfp.local knows only outputs called `Output`.
    """
    name = channel.removeprefix("pipelinechannel--")
    for key in (channel, name):
        with contextlib.suppress(ValueError, KeyError):
            return io_store.get_parent_input(key)
    parts = name.split("-")
    for end in range(len(parts) - 1, 0, -1):
        with contextlib.suppress(ValueError, KeyError):
            return io_store.get_task_output("-".join(parts[:end]), "-".join(parts[end:]))
    return None


def _reporting(
    run_task: Callable[..., Any], report: Callable[[dict[str, Any]], None], cache: StepCache
) -> Callable[..., Any]:
    """Return `run_task` with an event before and after each task: when, how it ended, and what of the log is its."""

    def run(**arguments: Any) -> Any:
        name, start = arguments["component_name"].removeprefix("comp-"), _log_bytes()

        def tell(event: str) -> None:
            its_log = {"log_start": start, "log_end": _log_bytes()}
            report({"task": name, "event": event, "time": time.time(), "exit_code": cache.exit_code, **its_log})

        cache.begin()
        tell("started")
        status = "FAILURE"
        try:
            outputs, task_status = run_task(**arguments)
            status = "CACHED" if cache.was_taken else task_status.name
            return outputs, task_status
        finally:
            tell(status.lower())

    return run


def _log_bytes() -> int:
    """Return how long the log is, which is this process's stdout."""
    sys.stdout.flush()
    return os.fstat(1).st_size


def _end_with_parent() -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main()
