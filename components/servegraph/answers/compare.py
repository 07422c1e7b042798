"""How far the answers of one model are from those of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.decisions import Decision, agreeing, rule_of
from servegraph.answers.dtypes import as_floats

Answers = Mapping[str, NDArray[Any]]


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
      standard deviation of all of them, of ten or more; so do floats of which the same is largest, or that say yes or
      no, for 99 of 100 records or more: each column for itself;
    - other floats nothing; nor those whose name or unit length says that they are an embedding, or a box.

    A row agrees as far as the output does that agrees least; `agreement` is the mean over the rows, of several
    signatures that of the one that agrees least.
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
    shares: list[NDArray[np.float64]] = [np.ones(size) for size in sizes]
    outputs = []
    for name in sorted({name for before, _ in pairs for name in before}):
        present = [number for number, (before, _) in enumerate(pairs) if name in before]
        found, its = _compare_output(
            name,
            [pairs[number][0][name] for number in present],
            [pairs[number][1][name] for number in present],
            [sizes[number] for number in present],
            judges_amounts,
        )
        outputs.append(found)
        for number, share in zip(present, its, strict=True):
            shares[number] = np.minimum(shares[number], share)
    total = sum(sizes)
    return _agreement(total, sum(float(share.sum()) for share in shares) / total if total else 1.0, outputs)


def together(found: Sequence[Agreement]) -> Agreement:
    """Return what several signatures agree to: all rows, all outputs, the least agreement."""
    outputs = [output for one in found for output in one.outputs]
    return _agreement(sum(one.rows for one in found), min((one.agreement for one in found), default=1.0), outputs)


def _agreement(rows: int, agreement: float, outputs: Sequence[OutputAgreement]) -> Agreement:
    numbers = sum(output.numbers for output in outputs)
    return Agreement(
        rows=rows,
        max_abs_diff=max((output.max_abs_diff for output in outputs), default=0.0),
        max_relative_diff=max((output.max_relative_diff for output in outputs), default=0.0),
        mean_abs_diff=sum(output.mean_abs_diff * output.numbers for output in outputs) / numbers if numbers else 0.0,
        agreement=agreement,
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
    rule = rule_of(name, wants, sizes, judges_amounts=judges_amounts)
    shares, measured = [], []
    for want, have, rows in zip(wants, haves, sizes, strict=True):
        if want.shape == have.shape:
            is_batched = want.ndim > 0 and len(want) == rows
            share = agreeing(rule, want, have, rows if is_batched else 1)
            measured.append(_differences(as_floats(want), as_floats(have)))
        else:
            share = np.zeros(1)
            measured.append(_Differences(0.0, 0.0, 0.0, 0, max(want.size, have.size), 0))
        shares.append(np.broadcast_to(share, rows))
    rows, numbers = sum(sizes), sum(one.numbers for one in measured)
    largest = max((one.largest for one in measured), default=0.0)
    found = OutputAgreement(
        name=name,
        decision=rule.decision,
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


def _differences(want: NDArray[Any], have: NDArray[Any]) -> _Differences:
    same = want == have
    if want.dtype.kind not in "fc":
        return _Differences(0.0, 0.0, 0.0, 0, int(np.sum(~same)), 0)
    same |= np.isnan(want) & np.isnan(have)
    finite = np.isfinite(want)
    both = finite & np.isfinite(have)
    with np.errstate(over="ignore"):  # what is infinitely far is beyond any limit
        difference = np.abs(want[both] - have[both])
        total = float(difference.sum())
    return _Differences(
        total=total,
        largest=float(difference.max(initial=0.0)),
        scale=float(np.abs(want[finite]).max(initial=0.0)),
        new_non_finite=int((~same & ~np.isfinite(have)).sum()),
        differing=int((~same).sum()),
        numbers=want.size,
    )
