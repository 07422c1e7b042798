"""Which outputs answer a request again as before: those that hold drawn numbers, counted calls or the time do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.ask import Loader, Servable
from servegraph.answers.child import in_child
from servegraph.answers.draws import NOW, at_time
from servegraph.answers.dtypes import is_float
from servegraph.answers.evidence import Question
from servegraph.answers.samples import GOLDEN_ROWS, Samples

_ROUNDING = 1e-5  # threads may add up in another order
_LATER = NOW + 98_765_432.1  # seconds since 1970: of another year, day and minute


def outputs_that_vary(path: Path, question: Question) -> set[str]:
    """Return the outputs of the model at `path` that answered one of the golden requests twice in different ways.

    So do those that tell the time, whenever it is.

    Raises:
        ModelError: it cannot be loaded or asked.
    """
    return in_child(_ask_twice, path, question.tags, question.signature, question.samples, question.loader)


def _ask_twice(path: Path, tags: tuple[str, ...], signature: str, samples: Samples, loader: Loader) -> set[str]:
    """Runs in a child: put the first records to the model as a server does, one round after the other."""
    requests = list(islice(samples.requests(), GOLDEN_ROWS))
    with at_time(NOW) as clocks, Servable(path, tags=tags, loader=loader) as servable:
        first, again = ([servable(signature, request) for request in requests] for _ in range(2))
    found = _differing(first, again)
    if clocks:
        with at_time(_LATER), Servable(path, tags=tags, loader=loader) as servable:
            found |= _differing(first, [servable(signature, request) for request in requests])
    return found


def _differing(first: Sequence[Mapping[str, NDArray[Any]]], again: Sequence[Mapping[str, NDArray[Any]]]) -> set[str]:
    pairs = zip(first, again, strict=True)
    return {name for before, after in pairs for name in before if not _is_close(before[name], after[name])}


def _is_close(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape or not is_float(one.dtype):
        return np.array_equal(one, other)
    one, other = one.astype(np.float64), other.astype(np.float64)
    largest = np.abs(one[np.isfinite(one)]).max(initial=0.0)
    return np.allclose(one, other, rtol=_ROUNDING, atol=_ROUNDING * largest, equal_nan=True)


def without(answers: Mapping[str, NDArray[Any]], left_out: set[str]) -> dict[str, NDArray[Any]]:
    """Return an answer without some of its outputs."""
    return {name: value for name, value in answers.items() if name not in left_out}
