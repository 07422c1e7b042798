"""How fast a changed model answers, against an earlier form of it: both in one process, in turn."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.ask import Arrays, Servable
from servegraph.answers.child import in_child
from servegraph.answers.evidence import Evidence, Question
from servegraph.answers.samples import Samples
from servegraph.errors import ModelError

BATCHES = (1, 32)
FASTER, AS_FAST = 1.03, 0.97  # nearer to 1 it could be noise
_SECONDS = 2.0  # for each batch size, after warming up: of all signatures together, but for each at least
_LEAST_SECONDS = 0.4
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 300


def ratios(before: Path, after: Path, evidence: Evidence) -> dict[str, float]:
    """Return how many times as fast `after` answers each signature, as the median of calls in random turn.

    By what it was asked, such as `batch 32 of 'serve'`; the name is left out where one signature was timed, as it is of
    several that answer the same. The MetaGraph and the loader are those of the main question.

    Raises:
        ModelError: one of them cannot be loaded or asked.
    """
    main = evidence.main
    questions: list[Question] = []
    for question in (main, *evidence.questions):
        is_there = (question.tags, question.loader) == (main.tags, main.loader)
        if is_there and not any(map(question.is_answered_as, questions)):
            questions.append(question)
    asked = [(question.signature, question.samples) for question in questions]
    times = in_child(_time, (before, after), main.tags, main.loader, asked)
    return {
        f"batch {batch}{f' of {signature!r}' if len(asked) > 1 else ''}": median(each[0]) / median(each[1])
        for (signature, batch), each in times.items()
    }


def objection(found: Mapping[str, float], least: float) -> str:
    """Return why a rung is not worth keeping that should make a model `least` times as fast at one of the sizes."""
    said = ", ".join(f"{ratio:.2f} times as fast at {what}" for what, ratio in found.items())
    if max(found.values()) < least or min(found.values()) < AS_FAST:
        return f"does not pay: {said}"
    return ""


def _time(
    paths: tuple[Path, Path], tags: tuple[str, ...], loader: Any, asked: Sequence[tuple[str, Samples]]
) -> dict[tuple[str, int], tuple[list[float], list[float]]]:
    """Runs in a child: seconds of every call of both models, by signature and batch size."""
    seconds = max(_SECONDS / len(asked), _LEAST_SECONDS)
    with Servable(paths[0], tags=tags, loader=loader) as one, Servable(paths[1], tags=tags, loader=loader) as other:
        found = {}
        for signature, samples in asked:
            for batch in BATCHES if samples.is_batched else BATCHES[:1]:
                request = {name: _resized(values, batch, samples) for name, values in samples.inputs.items()}
                try:
                    found[signature, batch] = _in_turn(one, other, signature, request, seconds)
                except ModelError:  # one that need not take requests of this size
                    if signature == asked[0][0]:
                        raise
        return found


def _in_turn(
    one: Servable, other: Servable, signature: str, request: Arrays, seconds: float
) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    for servable in (one, other, one, other):
        servable(signature, request)
    end = time.monotonic() + seconds
    for number in range(_MOST_ROUNDS):
        if number >= _LEAST_ROUNDS and time.monotonic() > end:
            break
        turns = [(one, times[0]), (other, times[1])]
        random.shuffle(turns)
        for servable, its_times in turns:
            started = time.perf_counter()
            servable(signature, request)
            its_times.append(time.perf_counter() - started)
    return times


def _resized(values: NDArray[Any], batch: int, samples: Samples) -> NDArray[Any]:
    return np.resize(values, (batch, *values.shape[1:])) if samples.is_batched else values
