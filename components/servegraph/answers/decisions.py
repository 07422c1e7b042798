"""What an output decides, and how far two answers decide the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.dtypes import as_floats, is_float

Decision = Literal["value", "largest", "yes or no", "amount", "none"]
Values = NDArray[Any]

MEASURES = ("embed", "encod", "feature", "hidden", "pool", "box")  # in the name of an output that is no class score
SAME_AMOUNT = 0.05  # of the standard deviation of all answers
ROUNDING = 1e-2  # float16 probabilities of a thousand classes add up to one no closer
_ROUNDED_AMOUNT = 1e-5  # of the largest value: float32 tells no less apart after a few operations
_FEW_AMOUNTS = 10  # of fewer their standard deviation says little
_ALWAYS = (
    0.99  # of the records: what is decided so often would agree by the default tolerance whatever else is answered
)


@dataclass(frozen=True)
class Rule:
    """What an output decides, from all that the original answered in it.

    `is_alike` where the original decides the same for nearly every record, so that agreeing with it says nothing.
    Amounts are the same `within` so much, by the column of the last dimension.
    """

    decision: Decision
    is_alike: bool = False
    within: NDArray[np.float64] | float = 0.0

    @property
    def is_telling(self) -> bool:
        """Whether agreement says anything."""
        return self.decision == "amount" or not (self.decision == "none" or self.is_alike)


def rule_of(name: str, wants: Sequence[Values], sizes: Sequence[int], *, judges_amounts: bool) -> Rule:
    """Return the rule that `Agreement` states for an output; `wants` are the answers to requests of `sizes` records."""
    decision = _decision(name, wants)
    is_alike = decision in ("largest", "yes or no") and is_float(wants[0].dtype) and _is_alike(decision, wants, sizes)
    if judges_amounts and (decision == "amount" or is_alike):
        columns = _columns(wants)
        if len(columns) >= _FEW_AMOUNTS:
            return Rule("amount", is_alike, _same_amount(columns))
    return Rule("none" if decision == "amount" else decision, is_alike)


def agreeing(rule: Rule, want: Values, have: Values, rows: int) -> NDArray[np.float64]:
    """Return, for each of the rows, how far it agrees, from 0 to 1."""
    if rule.decision == "none" or not want.size:
        return np.ones(rows)
    if rule.decision == "yes or no":
        return _jaccard(*(_said_yes(values).reshape(rows, -1) for values in (want, have)))
    if rule.decision == "amount":
        is_same = np.isclose(as_floats(have), as_floats(want), rtol=0, atol=rule.within, equal_nan=True)
    elif rule.decision == "largest":
        is_same = as_floats(want).argmax(axis=-1) == as_floats(have).argmax(axis=-1)
    else:
        is_same = np.asarray(want == have)
    shares: NDArray[np.float64] = np.asarray(is_same).reshape(rows, -1).mean(axis=1)
    return shares


def _decision(name: str, wants: Sequence[Values]) -> Decision:
    """Return what an output may decide, by its type, its shape and the range of its values."""
    first = wants[0]
    if first.dtype == np.bool_:
        return "yes or no"
    if not is_float(first.dtype):
        return "none" if first.dtype.kind == "c" else "value"
    several = [row for row in map(_rows_of_several, wants) if len(row)]
    finite = [value[np.isfinite(value)] for value in map(as_floats, wants)]
    if not any(value.size for value in finite) or any(word in name.lower() for word in MEASURES):
        return "none"
    if all(value.min(initial=0.0) >= 0 and value.max(initial=0.0) <= 1 for value in finite):
        is_shared = several and all(np.allclose(row.sum(axis=-1), 1, atol=ROUNDING) for row in several)
        return "largest" if is_shared else "yes or no"
    with np.errstate(over="ignore"):  # large values are no unit vector
        is_unit = all(np.allclose(np.square(row).sum(axis=-1), 1, atol=ROUNDING) for row in several)
    if several:
        return "none" if is_unit else "largest"
    return "amount"


def _is_alike(decision: Decision, wants: Sequence[Values], sizes: Sequence[int]) -> bool:
    """Whether an answer that is the same for every record would agree with what the original decides."""
    if decision == "largest":
        found = np.concatenate([as_floats(want).argmax(axis=-1).ravel() for want in wants if want.size])
        return bool(np.bincount(found).max() >= _ALWAYS * found.size)
    held = [(want, rows) for want, rows in zip(wants, sizes, strict=True) if want.size]
    said = [_said_yes(want).reshape(rows if want.shape[:1] == (rows,) else 1, -1) for want, rows in held]
    has_columns = len({yes.shape[1] for yes in said}) == 1
    always = np.concatenate(said).mean(axis=0) > 1 / 2 if has_columns else np.zeros(1, np.bool_)
    return float(np.concatenate([_jaccard(yes, always) for yes in said]).mean()) >= _ALWAYS


def _columns(wants: Sequence[Values]) -> NDArray[np.float64]:
    """Return all answers as [n, columns of the last dimension], or as [n, 1] where that is the rows' or differs."""
    widths = {want.shape[-1] if want.ndim > 1 else 1 for want in wants}
    width = widths.pop() if len(widths) == 1 else 1
    return np.concatenate([as_floats(want).reshape(-1, width) for want in wants if want.size])


def _same_amount(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, by column, how far an amount may be from what it was and still be the same."""
    # NumPy 2.2, the last one for Python 3.10, has no types for it.
    finite: Any = np.ma.masked_invalid(columns)  # type: ignore[no-untyped-call,unused-ignore]
    with np.errstate(over="ignore", invalid="ignore"):  # amounts whose squares are no float have an infinite spread
        spread, largest = finite.std(axis=0).filled(0.0), np.abs(finite).max(axis=0).filled(0.0)
    within: NDArray[np.float64] = np.maximum(SAME_AMOUNT * spread, _ROUNDED_AMOUNT * largest)
    return within


def _rows_of_several(values: Values) -> Values:
    """Return [n, k > 1] finite rows along the last dimension; none where it holds one."""
    if values.ndim < 2 or values.shape[-1] < 2:
        return np.empty((0, 0))
    rows = as_floats(values).reshape(-1, values.shape[-1])
    finite: Values = rows[np.isfinite(rows).all(axis=1)]
    return finite


def _said_yes(values: Values) -> NDArray[np.bool_]:
    floats = as_floats(values)
    yes: NDArray[np.bool_] = floats.copy() if floats.dtype == np.bool_ else floats >= 0.5
    if floats.ndim == 2 and floats.shape[1] > 1 and floats.dtype != np.bool_:
        yes[np.arange(len(yes)), floats.argmax(axis=1)] = True
    return yes


def _jaccard(yes: NDArray[np.bool_], now: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return, for each row, what both say yes to of what either does."""
    either, both = (yes | now).sum(axis=1), (yes & now).sum(axis=1)
    return np.where(either, both / np.maximum(either, 1), 1.0)
