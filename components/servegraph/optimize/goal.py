"""What an optimization is to reach, judged without TensorFlow: before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from servegraph.answers.tolerance import Tolerance
from servegraph.errors import InputError
from servegraph.machines.fit import budget_bytes_for
from servegraph.machines.sizes import parse_size


@dataclass(frozen=True)
class Goal:
    """What to reach: a budget in bytes within a tolerance.

    Without a budget only lossless rungs are climbed; with `rungs`, all that are named, in that order. `keep` are names
    or patterns of weights that stay in their own form, `label` is `KEY` or `KEY=OUTPUT`: which key of the samples is
    the right answer. `min_count` is how often the samples must look up an entry of a vocabulary for `trim` to keep it.
    """

    budget_bytes: int | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    rungs: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    label: str | None = None
    min_count: int = 1

    def __post_init__(self) -> None:
        """Check them. Raises `InputError` (`BAD_SIZE`, `BAD_TOLERANCE`; `BAD_INPUT` for a metric without label)."""
        if self.budget_bytes is not None and self.budget_bytes < 1:
            raise InputError(
                f"The budget is {self.budget_bytes} bytes, which no model fits.",
                code="BAD_SIZE",
                fix="Write it like 500MB, or leave it out for the smallest model without loss.",
            )
        self._check_tolerance()
        if self.min_count < 1:
            raise InputError(
                f"min_count is {self.min_count}; it must be 1 or more.",
                code="BAD_TOLERANCE",
                fix="With 1, the default, `trim` keeps every word that the samples have.",
            )

    def _check_tolerance(self) -> None:
        wanted = self.tolerance
        if not 0 <= wanted.min_agreement <= 1:
            raise InputError(
                f"The agreement {wanted.min_agreement:g} is not between 0 and 1.",
                code="BAD_TOLERANCE",
                fix="Write 99 % as 0.99.",
            )
        for name, value in (("max_abs_diff", wanted.max_abs_diff), ("max_metric_drop", wanted.max_metric_drop)):
            if value is not None and not value >= 0:
                raise InputError(
                    f"{name} is {value:g}; it must not be negative.",
                    code="BAD_TOLERANCE",
                    fix="Write it like 0.01, 0 for no difference at all, or leave it out for no limit.",
                )
        if wanted.max_metric_drop is not None and self.label is None:
            raise InputError(
                "A limit to what the metric may lose is given, and no label to measure it on.",
                fix="Name the key of the label in the samples (--label, in a pipeline label), or leave the limit out.",
            )


def goal_of(
    *,
    budget: str = "",
    fit: str = "",
    min_agreement: float = Tolerance.min_agreement,
    max_abs_diff: float | None = None,
    max_metric_drop: float | None = None,
    rungs: Sequence[str] = (),
    keep: Sequence[str] = (),
    label: str = "",
    min_count: int = 1,
) -> Goal:
    """Return the goal as command line and pipelines state it: `budget` like `500MB`, `fit` a machine or family.

    Raises:
        InputError: no size, no such machine, both budget and fit, or a tolerance out of its range.
    """
    if budget and fit:
        raise InputError("Both a budget and a machine to fit are given.", fix="Give one of them.")
    limit = parse_size(budget) if budget else budget_bytes_for(fit) if fit else None
    tolerance = Tolerance(min_agreement, max_abs_diff, max_metric_drop)
    # A pipeline's lists hold all that JSON has.
    return Goal(limit, tolerance, tuple(map(str, rungs)), tuple(map(str, keep)), label or None, min_count)


def limit_of(name: str, text: str) -> float | None:
    """Return a limit that a pipeline states as text, where empty sets none.

    Raises:
        InputError: it is no number (code `BAD_TOLERANCE`).
    """
    try:
        return float(text) if text else None
    except ValueError as exc:
        what = f"{name} is {text!r}, no number."
        raise InputError(what, code="BAD_TOLERANCE", fix="Write it like 0.01, or leave it out for no limit.") from exc
