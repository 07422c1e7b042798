"""How fast a changed model answers, against an earlier form of it: both in one process, in turn."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
_LONGER = 3  # times as many seconds, and rounds, until it is known on which side of a limit the ratio is
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 300

Pair = tuple[Servable, Servable]
Round = tuple[float, float]  # seconds of a call of each


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one model is as another, and the 95 % interval of it."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> Ratio:
        """Return the median of the ratios of calls that ran in the same round: a busy moment is in both.

        The interval is that of a median, which a normal distribution of ranks gives: n/2 ± 1.96 √n/2.
        """
        found = sorted(one / other for one, other in rounds)
        last, margin = len(found) - 1, 0.98 * math.sqrt(len(found))
        low, high = max(math.floor(last / 2 - margin), 0), min(math.ceil(last / 2 + margin), last)
        return cls(median(found), found[low], found[high])

    def is_open(self, least: float) -> bool:
        """Whether it may be on either side of a limit."""
        return any(self.low < limit < self.high for limit in (AS_FAST, least))


def ratios(before: Path, after: Path, evidence: Evidence, least: float) -> dict[str, Ratio]:
    """Return how many times as fast `after` answers each signature, in calls in random turn; `least` as `objection`'s.

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
    found = in_child(_time, (before, after), main.tags, main.loader, asked, least)
    return {
        f"batch {batch}{f' of {signature!r}' if len(asked) > 1 else ''}": Ratio.of(rounds)
        for (signature, batch), rounds in found.items()
    }


def objection(found: Mapping[str, Ratio], least: float) -> str:
    """Return why a rung is not worth keeping that should make a model `least` times as fast at one of the sizes.

    At none may it be slower, beyond what could be noise.
    """
    is_slower = any(ratio.high < AS_FAST for ratio in found.values())
    if is_slower or (least > 1 and max(ratio.value for ratio in found.values()) < least):
        return "does not pay: " + ", ".join(
            f"{ratio.value:.2f} times as fast at {what}" for what, ratio in found.items()
        )
    return ""


def _time(
    paths: tuple[Path, Path], tags: tuple[str, ...], loader: Any, asked: Sequence[tuple[str, Samples]], least: float
) -> dict[tuple[str, int], list[Round]]:
    """Runs in a child: seconds of every call of both models, by signature and batch size."""
    seconds = max(_SECONDS / len(asked), _LEAST_SECONDS)
    with Servable(paths[0], tags=tags, loader=loader) as one, Servable(paths[1], tags=tags, loader=loader) as other:
        found = {}
        for signature, samples in asked:
            for batch in BATCHES if samples.is_batched else BATCHES[:1]:
                request = {name: _resized(values, batch, samples) for name, values in samples.inputs.items()}
                try:
                    found[signature, batch] = _in_turn((one, other), signature, request, seconds, least)
                except ModelError:  # one that need not take requests of this size
                    if signature == asked[0][0]:
                        raise
        return found


def _in_turn(both: Pair, signature: str, request: Arrays, seconds: float, least: float) -> list[Round]:
    for servable in (*both, *both):
        servable(signature, request)
    rounds: list[Round] = []
    started = time.monotonic()
    for longer in (1, _LONGER):
        if rounds and not Ratio.of(rounds).is_open(least):
            break
        while len(rounds) < longer * _LEAST_ROUNDS or (
            len(rounds) < longer * _MOST_ROUNDS and time.monotonic() - started < longer * seconds
        ):
            rounds.append(_round(both, signature, request))
    return rounds


def _round(both: Pair, signature: str, request: Arrays) -> Round:
    took = {}
    for number in random.sample((0, 1), 2):
        started = time.perf_counter()
        both[number](signature, request)
        took[number] = time.perf_counter() - started
    return took[0], took[1]


def _resized(values: NDArray[Any], batch: int, samples: Samples) -> NDArray[Any]:
    return np.resize(values, (batch, *values.shape[1:])) if samples.is_batched else values
