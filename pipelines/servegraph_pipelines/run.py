"""`servegraph run`: the whole DAG on this machine, in a child process that ends when this one does."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from servegraph.errors import InputError, Refusal, ServegraphError, StorageError
from servegraph.extras import require
from servegraph.interrupt import terminated_as_interrupted
from servegraph.storage.local import answering
from servegraph.storage.local_paths import require_loadable_path, require_local
from servegraph_pipelines import flows, foresight
from servegraph_pipelines.images import for_local_target, for_trainer
from servegraph_pipelines.specification import Specification
from servegraph_pipelines.step_errors import disk_full, killed, known_error, last_raised

Runner = Literal["subprocess", "docker"]
# Pages that a step's artifact `report` holds, and that the report of the run links: the step and the title.
PAGES = {"ladder.html": ("optimize", "the ladder"), "inspection.html": ("inspect-graph", "the inspection")}
RECORDS = ("run.json", "report.html", *PAGES)  # what is written of a run when it has ended
# Parameters of a pipeline that name a place of its own, and the folder that a local run gives them.
PLACES = {"location": "serving", "history": "history"}
_END_TIMEOUT_S = 10
_FULL_BYTES = 1 << 20  # with less left the log may lack its last lines
_ENDS: dict[str, Literal["succeeded", "cached", "failed"]] = {"success": "succeeded", "cached": "cached"}


@dataclass
class StepRecord:
    """One step of a run; `seconds` is None while it has not ended.

    In a loop it is what runs again and again, at times at once: from the first start to the last end, `unended` of them
    now. One that failed makes it fail, and of that one are the exit code and the part of the log, in bytes.
    """

    name: str
    status: Literal["waiting", "running", "succeeded", "cached", "skipped", "failed", "cancelled"] = "waiting"
    seconds: float | None = None
    started: float = 0.0
    unended: int = 0
    exit_code: int | None = None
    log_start: int = 0
    log_end: int | None = None


@dataclass
class Run:
    """A run and where everything of it is: `pipeline_dir` has one folder a step with its artifacts."""

    output_dir: Path
    parameters: dict[str, Any]
    pipeline: str = flows.DEFAULT
    steps: list[StepRecord] = field(default_factory=list)
    pipeline_dir: Path | None = None
    error: ServegraphError | None = None
    interrupted: bool = False

    @property
    def log(self) -> Path:
        """What all steps printed."""
        return self.output_dir / "run.log"

    @property
    def succeeded(self) -> bool:
        """Whether every step succeeded."""
        ended_well = all(step.status in ("succeeded", "cached", "skipped") for step in self.steps)
        return ended_well and self.error is None and not self.interrupted


@dataclass(frozen=True)
class LocalRequest:
    """What to run here: `pipeline` as `flows` names it, its specification, and checked parameters."""

    pipeline: str
    specification: Specification
    parameters: Mapping[str, Any]
    runner: Runner = "subprocess"
    docker_network: str | None = None  # None takes the engine's default
    cache: bool = False  # take pure steps from earlier runs in the directory, see `step_cache`


def run(output_dir: Path, request: LocalRequest, on_change: Callable[[Run], None]) -> Run:
    """Run the pipeline and return what happened; `on_change` is called after every change of a step.

    A failed step is no exception: `Run.error` says what it was. Nor is an interruption: the running step is ended
    first, and `Run.interrupted` says so. What an earlier run left as its record is removed: it would pass for this
    one's. Places that a pipeline asks for and that are not given (`location`, `history`) are below `output_dir`.

    Raises:
        StorageError: `output_dir` cannot be written or another run uses it.
        InputError: `output_dir` is an address (code `NOT_LOCAL`), no model could be loaded from there
            (`UNLOADABLE_PATH`), the runner is Docker and there is none
            (`NO_DOCKER`), or TensorFlow is not installed (`PACKAGE_MISSING`).
    """
    output_dir = require_local(output_dir).absolute()
    require_loadable_path(output_dir, "output directory")
    if request.runner == "docker":
        _require_docker()
    elif request.specification.name in foresight.OWN:
        require(("tensorflow",), "Training on this machine", "train")
    specification = request.specification
    places = {name: str(output_dir / folder) for name, folder in PLACES.items() if name in specification.parameters}
    settings = {**places, **request.parameters}
    steps = [StepRecord(step.component.removeprefix("comp-")) for step in specification.steps]
    state = Run(output_dir, settings, request.pipeline, steps)
    with _exclusive(output_dir), _temporary(output_dir) as temporary:
        for name in RECORDS:
            with answering("remove", output_dir / name):
                (output_dir / name).unlink(missing_ok=True)
        root = output_dir / "pipeline"
        known = set(root.glob(f"{specification.name}-*"))
        pipeline = request.pipeline
        if request.runner == "docker":
            _make_root(root)
            settings = foresight.in_full(specification, settings, PLACES)
            pipeline = _in_containers(request, settings, temporary)
        message: dict[str, Any] = {"pipeline": pipeline, "pipeline_root": str(root), "runner": request.runner}
        message |= {"output_dir": str(output_dir), "docker_network": request.docker_network, "cache": request.cache}
        try:
            exit_code = _run_child(state, {**message, "parameters": settings}, temporary, on_change)
        except KeyboardInterrupt:
            exit_code, state.interrupted = 130, True
        state.pipeline_dir = max(set(root.glob(f"{specification.name}-*")) - known, default=None)
    is_told = any(step.status == "failed" for step in steps)
    for step in steps:
        if not exit_code and step.status == "waiting":  # a condition left it out
            step.status = "skipped"
        if step.status == "running":  # the run was interrupted, another step failed, or what runs the steps died
            step.seconds = round(time.time() - step.started, 2)
            step.status = "cancelled" if state.interrupted or is_told else "failed"
            step.exit_code = exit_code
    if not state.interrupted and (exit_code or not state.succeeded):
        state.error = failure(state)
    on_change(state)
    return state


def _require_docker() -> None:
    """Raise `InputError` (code `NO_DOCKER`) where no engine answers."""
    try:
        import docker

        docker.from_env().ping()
    except ImportError as exc:
        what = "Steps in containers need the package docker, which is not installed."
        raise InputError(what, code="NO_DOCKER", fix="pip install 'servegraph[all]'") from exc
    except docker.errors.DockerException as exc:
        fix = "Start Docker, or name its socket in DOCKER_HOST; or leave --runner out: then no Docker is needed."
        raise InputError(f"No Docker engine answers: {exc}.", code="NO_DOCKER", fix=fix) from exc


def _make_root(root: Path) -> None:
    """Make the folder of the runs for containers, which run as the owner of the output directory.

    kfp.local binds it into each, and an engine makes what it is to bind and is not there: as root's.
    """
    with answering("write", root):
        if not root.is_dir():
            root.mkdir()
            os.chown(root, root.parent.stat().st_uid, -1)


def _in_containers(request: LocalRequest, settings: Mapping[str, Any], folder: Path) -> str:
    """Return the pipeline to run in containers, a file in `folder`."""
    specification = for_local_target(for_trainer(request.specification, settings), settings)
    path = folder / "pipeline.yaml"
    path.write_text(specification.to_yaml(), encoding="utf-8")
    return str(path)


def failure(state: Run) -> ServegraphError:
    """Return the error of the step that failed first, as the step raised it, found at the end of what it printed."""
    failed = min((step for step in state.steps if step.status == "failed"), key=lambda s: s.started, default=None)
    where = f"Step {failed.name}" if failed else "The run"
    lines = _printed(state.log, failed)[-400:]
    if error := known_error(lines, where) or killed(failed.exit_code if failed else None, where, state.log):
        return error
    raised, free_bytes = last_raised(lines), shutil.disk_usage(state.output_dir).free
    if not raised and free_bytes < _FULL_BYTES:
        return disk_full(f"{where} failed, and the log ends early: {state.output_dir} has {free_bytes} bytes left.")
    return Refusal(
        f"{where} failed: {raised or 'it said nothing of why'}",
        code="STEP_FAILED",
        fix=f"See its output in {state.log}.",
    )


def _printed(log: Path, step: StepRecord | None) -> list[str]:
    """Return the lines that a step printed, or all: what runs after a failure, such as an exit handler, prints too."""
    with log.open("rb") as file:
        file.seek(step.log_start if step else 0)
        whole = file.read(step.log_end - step.log_start if step and step.log_end else -1)
    return whole.decode("utf-8", errors="replace").splitlines()


def _run_child(state: Run, request: dict[str, Any], temporary: Path, on_change: Callable[[Run], None]) -> int:
    read_end, write_end = os.pipe()
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",  # kfp's own, for every task
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
    }
    with state.log.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "servegraph_pipelines.local_runner", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[write_end],
            env=environment,
            start_new_session=True,
        )
    os.close(write_end)
    assert child.stdin is not None
    with os.fdopen(read_end, encoding="utf-8") as events:  # open until the child has ended: it tells of its end, too
        try:
            with terminated_as_interrupted():
                child.stdin.write(json.dumps(request).encode() + b"\n")
                child.stdin.flush()
                for line in events:
                    _apply(json.loads(line), state)
                    on_change(state)
                return child.wait()
        finally:
            _end_group(child)
            with contextlib.suppress(OSError):
                child.stdin.close()


def _apply(event: dict[str, Any], state: Run) -> None:
    step = next((step for step in state.steps if step.name == event["task"]), None)
    if step is None or step.status == "failed":
        return
    if event["event"] == "started":
        step.unended += 1
        step.status, step.seconds, step.started = "running", None, step.started or event["time"]
        step.log_start = event["log_end"]
        return
    step.unended -= 1
    ended = _ENDS.get(event["event"], "failed")
    if ended == "failed":
        step.exit_code, step.log_start, step.log_end = event["exit_code"], event["log_start"], event["log_end"]
    if ended == "failed" or not step.unended:
        step.status, step.seconds = ended, round(event["time"] - step.started, 2)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End the child and everything it started: ask first, insist after `_END_TIMEOUT_S`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        deadline = time.monotonic() + _END_TIMEOUT_S
        while time.monotonic() < deadline:
            child.poll()
            try:
                os.killpg(child.pid, 0)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(0.05)


@contextlib.contextmanager
def _exclusive(output_dir: Path) -> Iterator[None]:
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = (output_dir / ".lock").open("w")
    except OSError as exc:
        raise StorageError(
            f"{output_dir} cannot be written: {exc}.", code="CANNOT_WRITE", fix="Give another --output-dir."
        ) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StorageError(
                f"Another run is using {output_dir}.",
                code="OUTPUT_IN_USE",
                fix="Wait for it, or give another --output-dir.",
            ) from exc
        yield


@contextlib.contextmanager
def _temporary(output_dir: Path) -> Iterator[Path]:
    """A TMPDIR of the run's own: kfp.local leaves the source of every task behind in it.

    Those of runs that were killed go first: this one alone uses the directory.
    """
    for left in output_dir.glob(".tmp-*"):
        shutil.rmtree(left, ignore_errors=True)
    with answering("write", output_dir):
        path = Path(tempfile.mkdtemp(prefix=".tmp-", dir=output_dir))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
