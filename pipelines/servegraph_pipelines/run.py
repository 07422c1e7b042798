"""`servegraph run`: the whole DAG on this machine, in a child process that ends when this one does."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
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

from servegraph import errors
from servegraph.errors import InputError, Refusal, ServegraphError, StorageError

Runner = Literal["subprocess", "docker"]
STEPS = ("train", "export-serving-graph", "optimize", "inspect-graph", "measure", "choose-machine", "deploy-version")
_END_TIMEOUT_S = 10
_OWN_ERROR = re.compile(r"servegraph\.errors\.(\w+): \[([A-Z0-9_]+)\] (.*?)(?: Fix: (.*))?$")


@dataclass
class StepRecord:
    """One step of a run; `seconds` is None while it has not ended."""

    name: str
    status: Literal["waiting", "running", "succeeded", "failed"] = "waiting"
    seconds: float | None = None
    started: float = 0.0


@dataclass
class Run:
    """A run and where everything of it is: `pipeline_dir` has one folder a step with its artifacts."""

    output_dir: Path
    parameters: dict[str, Any]
    steps: list[StepRecord] = field(default_factory=lambda: [StepRecord(name) for name in STEPS])
    pipeline_dir: Path | None = None
    error: ServegraphError | None = None

    @property
    def log(self) -> Path:
        """What all steps printed."""
        return self.output_dir / "run.log"

    @property
    def succeeded(self) -> bool:
        """Whether every step succeeded."""
        return self.error is None and all(step.status == "succeeded" for step in self.steps)


def parse_parameters(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the pipeline parameters with the types of the pipeline's inputs.

    Raises:
        InputError: an unknown parameter (code `UNKNOWN_PARAMETER`) or a value of another type (`BAD_PARAMETER`).
    """
    from servegraph_pipelines.train_and_deploy import train_and_deploy

    known = train_and_deploy.pipeline_spec.root.input_definitions.parameters
    parameters = {}
    for name, text in given.items():
        if name not in known:
            raise InputError(
                f"The pipeline has no parameter {name!r}.",
                code="UNKNOWN_PARAMETER",
                fix=f"It has {', '.join(sorted(known))}.",
            )
        parameters[name] = _parse(name, text, known[name].parameter_type)
    return parameters


def _parse(name: str, text: str, kind: int) -> Any:
    from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

    label = ParameterType.ParameterTypeEnum.Name(kind)
    try:
        if label == "STRING":
            return text
        if label == "NUMBER_INTEGER":
            return int(text)
        if label == "NUMBER_DOUBLE":
            return float(text)
        value = json.loads(text)
    except ValueError as exc:
        raise InputError(f"The parameter {name} is {text!r}, not of type {label}.", code="BAD_PARAMETER") from exc
    expected = {"BOOLEAN": bool, "STRUCT": dict, "LIST": list}[label]
    if not isinstance(value, expected):
        raise InputError(f"The parameter {name} is {text!r}, not of type {label}.", code="BAD_PARAMETER")
    return value


def run(output_dir: Path, parameters: Mapping[str, Any], runner: Runner, on_change: Callable[[Run], None]) -> Run:
    """Run the pipeline and return what happened; `on_change` is called after every change of a step.

    A failed step is no exception: `Run.error` says what it was. Interrupted, the running step is ended first.

    Raises:
        StorageError: `output_dir` cannot be written or another run uses it.
        InputError: `output_dir` is a gs:// address.
    """
    if "://" in str(output_dir) or ":/" in str(output_dir):
        raise InputError(
            f"{output_dir} is no local directory; kfp.local cannot write elsewhere.",
            code="NOT_LOCAL",
            fix="Give a local directory, or submit the pipeline to Vertex AI or Kubeflow Pipelines.",
        )
    output_dir = output_dir.absolute()
    settings = {"location": str(output_dir / "serving"), **parameters}
    state = Run(output_dir, settings)
    with _exclusive(output_dir), _temporary(output_dir) as temporary:
        root = output_dir / "pipeline"
        known = set(root.glob("train-and-deploy-*"))
        request = {"pipeline_root": str(root), "runner": runner, "parameters": settings}
        exit_code = _run_child(state, request, temporary, on_change)
        state.pipeline_dir = max(set(root.glob("train-and-deploy-*")) - known, default=None)
    if exit_code or not state.succeeded:
        state.error = failure(state)
    on_change(state)
    return state


def failure(state: Run) -> ServegraphError:
    """Return the error of the step that failed, as the step raised it, found at the end of the log."""
    failed = next((step.name for step in state.steps if step.status in ("failed", "running")), None)
    where = f"Step {failed}" if failed else "The run"
    lines = state.log.read_text(encoding="utf-8", errors="replace").splitlines()[-400:]
    for line in reversed(lines):
        if match := _OWN_ERROR.search(line):
            kind, code, message, fix = match.groups()
            return _error_class(kind)(f"{where}: {message}", fix=fix or "", code=code)
    raised = [line.strip() for line in lines if re.match(r"^\s*\w[\w.]*(Error|Exception|Interrupt)\b", line)]
    return Refusal(
        f"{where} failed: {raised[-1] if raised else 'it said nothing of why'}",
        code="STEP_FAILED",
        fix=f"See its output in {state.log}.",
    )


def _error_class(name: str) -> type[ServegraphError]:
    found = getattr(errors, name, Refusal)
    return found if isinstance(found, type) and issubclass(found, ServegraphError) else Refusal


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
    try:
        with _terminate_raises(), os.fdopen(read_end, encoding="utf-8") as events:
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
    if step is None:
        return
    if event["event"] == "started":
        step.status, step.started = "running", event["time"]
    else:
        step.status = "succeeded" if event["event"] == "success" else "failed"
        step.seconds = round(event["time"] - step.started, 2)


@contextlib.contextmanager
def _terminate_raises() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does: through the cleanup."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    """A TMPDIR of the run's own: kfp.local leaves the source of every task behind in it."""
    path = Path(tempfile.mkdtemp(prefix=".tmp-", dir=output_dir))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
