"""How far the answers of one model are from those of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Answers = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Agreement:
    """`agreement` is the share of rows with the same decision, 1.0 where all are.

    `max_relative_diff` is the largest difference in an output over the largest value of that output.

    A row's decision is, for each output, its text or integer values, or the index of its largest float where the
    last dimension holds several. `new_non_finite` counts NaN and infinite values the original did not have.
    """

    rows: int
    max_abs_diff: float
    max_relative_diff: float
    mean_abs_diff: float
    agreement: float
    new_non_finite: int

    @property
    def identical(self) -> bool:
        """Whether every value is the same."""
        return self.max_abs_diff == 0.0 and self.agreement == 1.0 and not self.new_non_finite


def compare(original: Iterable[Answers], changed: Iterable[Answers]) -> Agreement:
    """Compare answers batch by batch; every array has the batch first.

    Raises:
        ValueError: the outputs have other names or shapes.
    """
    rows, agreeing, largest, relative, total, count, broken = 0, 0, 0.0, 0.0, 0.0, 0, 0
    for before, after in zip(original, changed, strict=True):
        if set(before) != set(after):
            raise ValueError(f"outputs {sorted(before)} became {sorted(after)}")
        same: Any = True
        for name, want in before.items():
            have = after[name]
            if want.shape != have.shape:
                raise ValueError(f"output {name!r} of shape {want.shape} became {have.shape}")
            same = same & _same_decision(want, have)
            if want.dtype.kind == "f":
                difference = _differences(want, have)
                worst = float(difference.max(initial=0.0))
                largest = max(largest, worst)
                relative = max(relative, worst / (float(np.abs(want[np.isfinite(want)]).max(initial=0.0)) or 1.0))
                total, count = total + float(difference.sum()), count + difference.size
                broken += int((~np.isfinite(have) & np.isfinite(want)).sum())
        batch = max((len(value) for value in before.values() if value.ndim), default=1)
        rows += batch
        agreeing += int(np.broadcast_to(same, batch).sum())
    return Agreement(rows, largest, relative, total / count if count else 0.0, agreeing / rows if rows else 1.0, broken)


def _differences(want: NDArray[Any], have: NDArray[Any]) -> NDArray[np.float64]:
    """Absolute differences where both are finite; NaN against NaN and ∞ against ∞ count as equal."""
    both = np.isfinite(want) & np.isfinite(have)
    return np.abs(np.where(both, want, 0).astype(np.float64) - np.where(both, have, 0).astype(np.float64))


def _same_decision(want: NDArray[Any], have: NDArray[Any]) -> NDArray[np.bool_] | np.bool_:
    """Return [batch] booleans (or one, for an output without a batch)."""
    if want.dtype.kind == "f":
        if want.ndim < 2 or want.shape[-1] < 2:
            # One number is no decision among several; a probability decides at one half.
            if not want.size or want.min() < 0 or want.max() > 1:
                return np.bool_(True)
            equal = (want >= 0.5) == (have >= 0.5)
        else:
            equal = want.argmax(axis=-1) == have.argmax(axis=-1)
    else:
        equal = want == have
    return equal.reshape(len(equal), -1).all(axis=1) if equal.ndim else np.bool_(equal)
