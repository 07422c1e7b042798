"""How fast a changed model answers, against the model that it was made from: both in one process, in turn."""

from __future__ import annotations

import random
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.ask import Servable
from servegraph.answers.child import in_child
from servegraph.answers.evidence import Question
from servegraph.answers.samples import Samples

BATCHES = (1, 32)
FASTER, AS_FAST = 1.03, 0.97  # nearer to 1 it could be noise
_SECONDS = 2.0  # for each batch size, after warming up
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 300


def ratios(before: Path, after: Path, question: Question) -> dict[int, float]:
    """Return by batch size how many times as fast `after` answers, as the median of calls in random turn.

    Raises:
        ModelError: one of them cannot be loaded or asked.
    """
    times = in_child(_time, (before, after), question.tags, question.signature, question.samples, question.loader)
    return {batch: median(each[0]) / median(each[1]) for batch, each in times.items()}


def objection(found: dict[int, float], least: float) -> str:
    """Return why a rung is not worth keeping that should make a model `least` times as fast at one of the sizes."""
    said = ", ".join(f"{ratio:.2f} times as fast at batch {batch}" for batch, ratio in found.items())
    if max(found.values()) < least or min(found.values()) < AS_FAST:
        return f"does not pay: {said}"
    return ""


def _time(
    paths: tuple[Path, Path], tags: tuple[str, ...], signature: str, samples: Samples, loader: Any
) -> dict[int, tuple[list[float], list[float]]]:
    """Runs in a child: seconds of every call of both models, by batch size."""
    with Servable(paths[0], tags=tags, loader=loader) as one, Servable(paths[1], tags=tags, loader=loader) as other:
        found = {}
        for batch in BATCHES if samples.is_batched else BATCHES[:1]:
            request = {name: _resized(values, batch, samples) for name, values in samples.inputs.items()}
            times: tuple[list[float], list[float]] = ([], [])
            for servable in (one, other, one, other):
                servable(signature, request)
            end = time.monotonic() + _SECONDS
            for number in range(_MOST_ROUNDS):
                if number >= _LEAST_ROUNDS and time.monotonic() > end:
                    break
                turns = [(one, times[0]), (other, times[1])]
                random.shuffle(turns)
                for servable, its_times in turns:
                    started = time.perf_counter()
                    servable(signature, request)
                    its_times.append(time.perf_counter() - started)
            found[batch] = times
        return found


def _resized(values: NDArray[Any], batch: int, samples: Samples) -> NDArray[Any]:
    return np.resize(values, (batch, *values.shape[1:])) if samples.is_batched else values
