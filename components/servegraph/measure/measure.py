"""Measures a model as a server under a machine's limits, and tries the settings that may help."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from servegraph.errors import Refusal, StorageError
from servegraph.interrupt import terminated_as_interrupted
from servegraph.machines.sizes import format_size
from servegraph.measure.cgroups import Group, limited_group
from servegraph.measure.limits import Limits, check
from servegraph.measure.load import drive
from servegraph.measure.questions import Questions, ask_for
from servegraph.measure.result import Batch, Figures, Measurement, Tried
from servegraph.measure.tuning import Change, changes, combined
from servegraph.progress import Progress
from servegraph.savedmodel.layout import require_saved_model
from servegraph.serve.artifacts import arrange
from servegraph.serve.child import ServerProcess
from servegraph.serve.options import DEFAULT_MAX_BODY_BYTES
from servegraph.serve.server import require_packages
from servegraph.serve.settings import Settings
from servegraph.storage import open_dir
from servegraph.storage.data_files import require_match

NAME = "measured"
CONNECTIONS = 16
BATCHES = (1, 4, 16, 64)
FASTER = 1.05  # a change has to win by this in latency or rate, and may not lose as much in the other
RTOL, ATOL = 1e-4, 1e-5
_DOES_NOT_FIT = "DOES_NOT_FIT"
_OF_THE_MODEL = frozenset({"MODEL_NOT_LOADED", "NOT_ANSWERED"})
_BAD_REQUEST = 400
_CHECKED = 8  # requests whose answers are compared


@dataclass(frozen=True)
class MeasureRequest:
    """What to measure: `seconds` of each kind of load; `tune` False tries no settings.

    `bfloat16_max_diff` is how far an answer may be from float32's for bfloat16 to be kept; None does not try it.
    """

    model: Path
    limits: Limits
    samples: str | None = None
    seconds: float = 3.0
    tune: bool = True
    latency_goal_ms: float | None = None
    bfloat16_max_diff: float | None = None


@dataclass(frozen=True)
class _Run:
    """What one server did and said."""

    figures: Figures
    answers: tuple[Any, ...]


def measure(request: MeasureRequest) -> Measurement:
    """Return what the model does under the limits. SIGTERM ends it as Ctrl-C does: nothing of it stays.

    Raises:
        InputError: this machine has less than the limits (code `MACHINE_TOO_SMALL`), the server lacks packages
            (`PACKAGE_MISSING`), or the model cannot be read.
        StorageError: there is no model, or there are no samples (code `NOT_FOUND`).
        Refusal: it does not load or answer under them (`DOES_NOT_FIT`), or nothing can be asked (`NOTHING_TO_ASK`).
    """
    with terminated_as_interrupted():
        return _measure(request)


def _measure(request: MeasureRequest) -> Measurement:
    require_packages()
    check(request.limits)
    if not request.model.is_dir():
        what = f"There is no directory {str(request.model)!r}."
        raise StorageError(what, code="NOT_FOUND", fix="Give a SavedModel on this machine.")
    require_match(request.samples)
    model_bytes = size_of(request.model)
    questions = ask_for(request.model, request.samples)
    root = Path(tempfile.mkdtemp(prefix="servegraph-"))
    try:
        arrange(request.model, root, NAME)
        with limited_group(request.limits.cpus, request.limits.memory_bytes) as group:
            bench = _Bench(root, request, questions, group)
            base = Settings()
            may_round = request.bfloat16_max_diff is not None
            planned = changes(base, request.limits.cpus, is_batched=questions.is_batched, may_round=may_round)
            planned = planned if request.tune else []
            with Progress("measure", total=1 + len(planned)) as progress:
                first = bench.run(base)
                progress.advance("as it is")
                settings, figures, tried = _tune(bench, first, planned, progress.advance)
    finally:
        shutil.rmtree(root)
    return Measurement(
        model_bytes=model_bytes,
        limits=request.limits,
        how="cgroup" if group is not None else "affinity+rlimit",
        questions=f"{questions.rows} rows, {questions.source}",
        figures=figures,
        settings=settings,
        tried=tuple(tried),
        notes=tuple(_notes(figures, bench)),
        latency_goal_ms=request.latency_goal_ms,
    )


def size_of(model: Path) -> int:
    """Return the bytes of all files of a SavedModel. Raises `ModelError` where it is none."""
    return sum(file.size_bytes for file in require_saved_model(open_dir(str(model))))


def _tune(
    bench: _Bench, first: _Run, planned: Sequence[Change], advance: Callable[[str], None]
) -> tuple[Settings, Figures, list[Tried]]:
    """Try each change on top of those kept; what wins has to win again against a fresh run of what it replaces."""
    base = settings = Settings()
    current = first
    tried: list[Tried] = []
    for change in planned:
        candidate = combined(settings, change.settings, base)
        run = bench.run(candidate)
        verdict = judged(change.name, current.figures, run.figures, bench.agree(candidate, first, run))
        if verdict.kept:
            again = bench.run(settings)
            run = bench.run(candidate)
            verdict = judged(change.name, again.figures, run.figures, bench.agree(candidate, first, run))
        if verdict.kept:
            settings, current = candidate, run
            if candidate.bfloat16:
                verdict = replace(verdict, reason="faster, with answers as near as was allowed")
        tried.append(verdict)
        advance(f"{change.name}: {'kept' if verdict.kept else verdict.reason}")
    return settings, current.figures, tried


def judged(name: str, before: Figures, after: Figures, is_equal: bool) -> Tried:
    """Return whether a change is kept: equal answers, faster in one respect and not slower in the other."""
    latency, rate = before.latency_ms / after.latency_ms, after.rate / before.rate
    ratios = {"latency_ratio": round(latency, 3), "rate_ratio": round(rate, 3)}
    if not is_equal:
        return Tried(name, False, "the answers differ", **ratios)
    if max(latency, rate) < FASTER:
        return Tried(name, False, "not faster", **ratios)
    if min(latency, rate) < 1 / FASTER:
        return Tried(name, False, "faster in one respect, slower in the other", **ratios)
    return Tried(name, True, "faster, with equal answers", **ratios)


def answers_equal(one: Any, other: Any, atol: float = ATOL) -> bool:
    """Whether two answers in JSON agree, floats but for `atol` and rounding."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or abs(one - other) <= atol + RTOL * abs(other) or (one != one and other != other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(answers_equal(each, its_other, atol) for each, its_other in pairs)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(answers_equal(value, other[key], atol) for key, value in one.items())
    return bool(one == other)


class _Bench:
    """Starts a server with some settings under the limits, asks it, and ends it."""

    def __init__(self, root: Path, request: MeasureRequest, questions: Questions, group: Group | None) -> None:
        self._root = root
        self._request = request
        self._questions = questions
        self._group = group
        one_row_bytes = len(questions.body(1))
        self.max_body_bytes = max(DEFAULT_MAX_BODY_BYTES, one_row_bytes)
        batches = BATCHES if questions.is_batched else BATCHES[:1]
        # Rows hardly differ in length: what is far beyond the limit is not written out to be counted.
        self.batches = tuple(rows for rows in batches if rows * one_row_bytes <= self.max_body_bytes)
        self.is_cut = self.batches != batches
        self.refused: str | None = None  # what the model says to more rows than it takes, empty where it takes all

    def run(self, settings: Settings) -> _Run:
        limits = self._request.limits
        launch = ("servegraph.measure.limited", str(limits.cpus), str(limits.memory_bytes or 0), str(self._group or ""))
        started_s = time.perf_counter()
        try:
            with ServerProcess(
                self._root,
                options=(
                    *("--no-probe", "--ignore-settings", "--max-body-bytes", str(self.max_body_bytes)),
                    *settings.arguments(),
                ),
                launch=launch,
                environment=settings.environment(),
            ) as server:
                server.wait_until_available(NAME)
                load_seconds = time.perf_counter() - started_s
                steady = _status_bytes(server.pid, "VmRSS")
                self._check_fits(_status_bytes(server.pid, "VmHWM"))
                answers = self._answers(server)
                if self.refused is None:
                    self.refused = self._leave_out_refused(server)
                figures = self._figures(server, load_seconds, steady)
        except Refusal as exc:
            self._explain(exc)
            raise
        self._check_fits(figures.peak_memory_bytes)
        return _Run(figures, answers)

    def _explain(self, error: Refusal) -> None:
        """Raise `DOES_NOT_FIT` where the limits can be why there is no answer; an error of the model's own stays."""
        limits, group = self._request.limits, self._group
        is_killed = group is not None and group.oom_kills > 0
        # Without a group a limit of memory shows in any way: an allocation that fails, an abort, …
        is_own = error.code in _OF_THE_MODEL and (limits.memory_bytes is None or group is not None)
        if error.code == _DOES_NOT_FIT or (is_own and not is_killed):
            return
        cpus = "1 CPU" if limits.cpus == 1 else f"{limits.cpus} CPUs"
        memory = f" and {format_size(limits.memory_bytes)} of memory" if limits.memory_bytes else ""
        why = f"it was ended for needing more memory. {error.message}" if is_killed else error.message
        raise Refusal(
            f"The model does not load or answer under {cpus}{memory}: {why}",
            code=_DOES_NOT_FIT,
            fix="Shrink it with `servegraph optimize`, or give it more.",
        ) from error

    def agree(self, settings: Settings, first: _Run, run: _Run) -> bool:
        """Whether a run's answers are those of the first; with bfloat16 as near as was asked for."""
        allowed = self._request.bfloat16_max_diff if settings.bfloat16 else None
        return answers_equal(first.answers, run.answers, max(ATOL, allowed or 0))

    def _check_fits(self, peak_bytes: int) -> None:
        limit_bytes = self._request.limits.memory_bytes
        if limit_bytes is not None and peak_bytes > limit_bytes:
            raise Refusal(
                f"The server took {format_size(peak_bytes)} of memory, the limit is {format_size(limit_bytes)}.",
                code=_DOES_NOT_FIT,
                fix="Shrink the model with `servegraph optimize`, or give it more.",
            )

    def _answers(self, server: ServerProcess) -> tuple[Any, ...]:
        found = []
        for start in range(min(_CHECKED, self._questions.rows)):
            answer = server.post(_TARGET, json.loads(self._questions.body(1, start)))
            if answer.status != 200:
                raise Refusal(
                    f"A sample request of one row is answered with {answer.status}: {answer.document}",
                    code="NOT_ANSWERED" if answer.status == _BAD_REQUEST else None,
                    fix="Give requests that the model answers with --samples FILE.jsonl.",
                )
            found.append(answer.document)
        return tuple(found)

    def _leave_out_refused(self, server: ServerProcess) -> str:
        """Ask once with each number of rows, and return what a model says to more than it takes: a bad request."""
        for rows in self.batches[1:]:
            answer = server.post_bytes(_TARGET, self._questions.body(rows))
            if answer.status == _BAD_REQUEST:
                self.batches = tuple(fewer for fewer in self.batches if fewer < rows)
                return f"{rows} rows at once are refused: {answer.document.get('error', answer.document)}"
        return ""

    def _figures(self, server: ServerProcess, load_seconds: float, steady: int) -> Figures:
        seconds = self._request.seconds
        port = int(server.url.rpartition(":")[2])
        batches = []
        for rows in self.batches:
            body = self._questions.body(rows)
            drive(port, _TARGET, body, connections=1, seconds=seconds / 10)  # warm
            load = drive(port, _TARGET, body, connections=1, seconds=seconds / 2)
            p50, p99 = round(load.percentile_ms(50), 4), round(load.percentile_ms(99), 4)
            batches.append(Batch(rows, p50, p99, round(load.rate * rows, 1)))
        load = drive(port, _TARGET, self._questions.body(1), connections=CONNECTIONS, seconds=seconds)
        return Figures(
            load_seconds=load_seconds,
            steady_memory_bytes=steady,
            peak_memory_bytes=_status_bytes(server.pid, "VmHWM"),
            batches=tuple(batches),
            connections=CONNECTIONS,
            rate=load.rate,
            rate_p99_ms=round(load.percentile_ms(99), 4),
        )


_TARGET = f"/v1/models/{NAME}:predict"


def _status_bytes(pid: int, key: str) -> int:
    """Return a size of `/proc/PID/status`; the file has kB and means KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _notes(figures: Figures, bench: _Bench) -> list[str]:
    notes = []
    if bench.max_body_bytes > DEFAULT_MAX_BODY_BYTES:
        size = bench.max_body_bytes
        notes.append(f"One row takes {size} bytes as JSON: its server needs --max-body-bytes of at least so many.")
    elif bench.refused:
        notes.append(bench.refused[:250])
    elif bench.is_cut:
        most = format_size(DEFAULT_MAX_BODY_BYTES)
        notes.append(f"More than {bench.batches[-1]} rows were not asked: as JSON they are larger than {most}.")
    if figures.batches[0].p99_ms > 5 * figures.latency_ms:
        notes.append("The slowest of a hundred took more than five times the median: this machine was not quiet.")
    return notes
