"""How far the answers of one model are from those of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.dtypes import is_float

Answers = Mapping[str, NDArray[Any]]
Decision = Literal["value", "largest", "yes or no", "amount", "none"]

MEASURES = ("embed", "encod", "feature", "hidden", "pool", "box")  # in the name of an output that is no class score
SAME_AMOUNT = 0.05  # of the standard deviation of all answers
_ROUNDED_AMOUNT = 1e-5  # of the largest value: float32 tells no less apart after a few operations
_FEW_AMOUNTS = 10  # of fewer their standard deviation says little
ROUNDING = 1e-2  # float16 probabilities of a thousand classes add up to one no closer


@dataclass(frozen=True)
class OutputAgreement:
    """What `Agreement` says of all outputs, for one.

    `differing` counts the values that are not the same, `numbers` those that `mean_abs_diff` is the mean of.
    """

    name: str
    decision: Decision
    agreement: float
    max_abs_diff: float
    max_relative_diff: float
    mean_abs_diff: float
    new_non_finite: int
    differing: int
    numbers: int


@dataclass(frozen=True)
class Agreement:
    """`agreement` is the share of decisions that are the same, 1.0 where all are.

    `max_relative_diff` is the largest difference in an output over the largest value of that output. Differences are
    those of floats where both are finite; `new_non_finite` counts NaN and infinite values where the original has
    something else.

    What an output decides follows from all of the original's answers:

    - text and integers: each value;
    - booleans and floats from 0 to 1: yes or no, at one half, and in a [batch, classes] output the largest too. A row
      of several agrees as far as what either model says yes to is what both do (the Jaccard index);
    - floats from 0 to 1 that add up to one along the last dimension, and other floats of several along the last
      dimension: which is the largest, for each position of a row;
    - floats of one along the last dimension, where amounts are judged: whether they are the same within 5 % of the
      standard deviation of all of them, of ten or more;
    - other floats nothing; nor those whose name or unit length says that they are an embedding, or a box.

    A row agrees as far as the output does that agrees least; `agreement` is the mean over the rows.
    """

    rows: int
    max_abs_diff: float
    max_relative_diff: float
    mean_abs_diff: float
    agreement: float
    new_non_finite: int
    outputs: tuple[OutputAgreement, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether every value is the same; NaN is the same as NaN."""
        differing = sum(output.differing for output in self.outputs)
        return self.max_abs_diff == 0.0 and self.agreement == 1.0 and not self.new_non_finite and not differing

    @property
    def worst(self) -> OutputAgreement | None:
        """The output that agrees least; of those that agree the one with the largest relative difference."""
        return min(self.outputs, key=lambda output: (output.agreement, -output.max_relative_diff), default=None)


def compare(
    original: Iterable[Answers],
    changed: Iterable[Answers],
    rows: Sequence[int] | None = None,
    *,
    judges_amounts: bool = False,
) -> Agreement:
    """Compare the answers to the same requests, of one signature.

    `judges_amounts` for requests whose answers are what they would be in use. `rows` is the number of records of each
    request; without it, it is what the first dimension of most outputs says. An output with another first dimension is
    one decision for the whole request. Where only the sizes of an output differ (a number of detections, say), no
    decision is the same.

    Raises:
        ValueError: the outputs have other names or ranks.
    """
    pairs = list(zip(original, changed, strict=True))
    for before, after in pairs:
        if before.keys() != after.keys():
            raise ValueError(f"outputs {sorted(before)} became {sorted(after)}")
    sizes = list(rows) if rows is not None else [_rows(before) for before, _ in pairs]
    agreeing = [np.ones(size) for size in sizes]
    outputs = []
    for name in sorted({name for before, _ in pairs for name in before}):
        present = [number for number, (before, _) in enumerate(pairs) if name in before]
        found, shares = _compare_output(
            name,
            [pairs[number][0][name] for number in present],
            [pairs[number][1][name] for number in present],
            [sizes[number] for number in present],
            judges_amounts,
        )
        outputs.append(found)
        for number, share in zip(present, shares, strict=True):
            agreeing[number] = np.minimum(agreeing[number], share)
    return _agreement(sum(sizes), sum(float(share.sum()) for share in agreeing), outputs)


def together(found: Sequence[Agreement]) -> Agreement:
    """Return what several signatures agree to: all rows, all outputs."""
    agreeing = sum(one.agreement * one.rows for one in found)
    return _agreement(sum(one.rows for one in found), agreeing, [output for one in found for output in one.outputs])


def _agreement(rows: int, agreeing: float, outputs: Sequence[OutputAgreement]) -> Agreement:
    numbers = sum(output.numbers for output in outputs)
    return Agreement(
        rows=rows,
        max_abs_diff=max((output.max_abs_diff for output in outputs), default=0.0),
        max_relative_diff=max((output.max_relative_diff for output in outputs), default=0.0),
        mean_abs_diff=sum(output.mean_abs_diff * output.numbers for output in outputs) / numbers if numbers else 0.0,
        agreement=agreeing / rows if rows else 1.0,
        new_non_finite=sum(output.new_non_finite for output in outputs),
        outputs=tuple(outputs),
    )


class _Differences(NamedTuple):
    """Of one answer: sum and largest of the absolute differences, largest value, and counts."""

    total: float
    largest: float
    scale: float
    new_non_finite: int
    differing: int
    numbers: int


def _compare_output(
    name: str,
    wants: Sequence[NDArray[Any]],
    haves: Sequence[NDArray[Any]],
    sizes: Sequence[int],
    judges_amounts: bool,
) -> tuple[OutputAgreement, list[NDArray[np.float64]]]:
    """Return the agreement of one output, and for each answer how far its rows agree."""
    for want, have in zip(wants, haves, strict=True):
        if want.ndim != have.ndim:
            raise ValueError(f"output {name!r} of shape {want.shape} became {have.shape}")
    decision = _decision(name, wants, judges_amounts)
    within = _same_amount(wants) if decision == "amount" else 0.0
    shares, measured = [], []
    for want, have, rows in zip(wants, haves, sizes, strict=True):
        if want.shape == have.shape:
            is_batched = want.ndim > 0 and len(want) == rows
            share = _agreeing(decision, want, have, rows if is_batched else 1, within)
            measured.append(_differences(_plain(want), _plain(have)))
        else:
            share = np.zeros(1)
            measured.append(_Differences(0.0, 0.0, 0.0, 0, max(want.size, have.size), 0))
        shares.append(np.broadcast_to(share, rows))
    rows, numbers = sum(sizes), sum(one.numbers for one in measured)
    largest = max((one.largest for one in measured), default=0.0)
    found = OutputAgreement(
        name=name,
        decision=decision,
        agreement=sum(float(share.sum()) for share in shares) / rows if rows else 1.0,
        max_abs_diff=largest,
        max_relative_diff=largest / (max((one.scale for one in measured), default=0.0) or 1.0),
        mean_abs_diff=sum(one.total for one in measured) / numbers if numbers else 0.0,
        new_non_finite=sum(one.new_non_finite for one in measured),
        differing=sum(one.differing for one in measured),
        numbers=numbers,
    )
    return found, shares


def _rows(answers: Answers) -> int:
    counts = Counter(len(value) for value in answers.values() if value.ndim)
    return max(counts, key=lambda size: (counts[size], size), default=1)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Return floats of all sizes as float64."""
    with np.errstate(invalid="ignore"):  # a signalling NaN of bfloat16
        return values.astype(np.float64) if is_float(values.dtype) else values


def _differences(want: NDArray[Any], have: NDArray[Any]) -> _Differences:
    same = want == have
    if want.dtype.kind not in "fc":
        return _Differences(0.0, 0.0, 0.0, 0, int(np.sum(~same)), 0)
    same |= np.isnan(want) & np.isnan(have)
    finite = np.isfinite(want)
    both = finite & np.isfinite(have)
    difference = np.abs(want[both] - have[both])
    return _Differences(
        total=float(difference.sum()),
        largest=float(difference.max(initial=0.0)),
        scale=float(np.abs(want[finite]).max(initial=0.0)),
        new_non_finite=int((~same & ~np.isfinite(have)).sum()),
        differing=int((~same).sum()),
        numbers=want.size,
    )


def _decision(name: str, wants: Sequence[NDArray[Any]], judges_amounts: bool) -> Decision:
    """Return what an output decides, by the rules that `Agreement` states."""
    first = wants[0]
    if first.dtype == np.bool_:
        return "yes or no"
    if not is_float(first.dtype):
        return "none" if first.dtype.kind == "c" else "value"
    several = [row for row in map(_rows_of_several, wants) if len(row)]
    finite = [value[np.isfinite(value)] for value in map(_plain, wants)]
    if not any(value.size for value in finite) or any(word in name.lower() for word in MEASURES):
        return "none"
    if all(value.min(initial=0.0) >= 0 and value.max(initial=0.0) <= 1 for value in finite):
        is_shared = several and all(np.allclose(row.sum(axis=-1), 1, atol=ROUNDING) for row in several)
        return "largest" if is_shared else "yes or no"
    is_unit = all(np.allclose(np.square(row).sum(axis=-1), 1, atol=ROUNDING) for row in several)
    if several:
        return "none" if is_unit else "largest"
    return "amount" if judges_amounts and sum(value.size for value in finite) >= _FEW_AMOUNTS else "none"


def _same_amount(wants: Sequence[NDArray[Any]]) -> float:
    """Return how far an amount may be from what it was and still be the same."""
    values = np.concatenate([_plain(want).ravel() for want in wants])
    finite = values[np.isfinite(values)]
    return max(SAME_AMOUNT * float(finite.std()), _ROUNDED_AMOUNT * float(np.abs(finite).max()))


def _rows_of_several(values: NDArray[Any]) -> NDArray[Any]:
    """Return [n, k > 1] finite rows along the last dimension; none where it holds one."""
    if values.ndim < 2 or values.shape[-1] < 2:
        return np.empty((0, 0))
    rows = _plain(values).reshape(-1, values.shape[-1])
    finite: NDArray[Any] = rows[np.isfinite(rows).all(axis=1)]
    return finite


def _agreeing(
    decision: Decision, want: NDArray[Any], have: NDArray[Any], rows: int, within: float
) -> NDArray[np.float64]:
    """Return, for each of the rows, how far it agrees, from 0 to 1; amounts are the same `within` so much."""
    if decision == "none" or not want.size:
        return np.ones(rows)
    if decision == "yes or no":
        yes, now = (_said_yes(_plain(values)).reshape(rows, -1) for values in (want, have))
        either, both = (yes | now).sum(axis=1), (yes & now).sum(axis=1)
        return np.where(either, both / np.maximum(either, 1), 1.0)
    if decision == "amount":
        is_same = np.isclose(_plain(have), _plain(want), rtol=0, atol=within, equal_nan=True)
    elif decision == "largest":
        is_same = _plain(want).argmax(axis=-1) == _plain(have).argmax(axis=-1)
    else:
        is_same = np.asarray(want == have)
    shares: NDArray[np.float64] = np.asarray(is_same).reshape(rows, -1).mean(axis=1)
    return shares


def _said_yes(values: NDArray[Any]) -> NDArray[np.bool_]:
    yes: NDArray[np.bool_] = values.copy() if values.dtype == np.bool_ else values >= 0.5
    if values.ndim == 2 and values.shape[1] > 1 and values.dtype != np.bool_:
        yes[np.arange(len(yes)), values.argmax(axis=1)] = True
    return yes
