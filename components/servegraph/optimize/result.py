"""What came of optimizing: the steps with their evidence, and the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servegraph.errors import BudgetNotMet
from servegraph.machines import quota
from servegraph.machines.sizes import format_size

_MORE_LOSS = "Allow more loss (--min-agreement, --max-metric-drop, --max-abs-diff; in a pipeline min_agreement)."
_QUOTA_ADVICE = (
    "Leave assets out or shorten vocabularies (`servegraph optimize --rungs` with trim), split the model, or "
    f"{quota.ASK}; state what is granted with a larger budget (--budget, in a pipeline budget)."
)


@dataclass(frozen=True)
class Step:
    """One rung that was tried. `bytes` is the size the model had with it; `reason` says why it was not kept.

    `max_abs_diff` and `mean_abs_diff` are through the first loader that takes the original (a session, if one does),
    `agreement` is the worst of all, `forms` counts the weights by the form they are stored in. Of `seconds`,
    `asking_seconds` went into asking the changed model. Rungs that were asked together have what the last one answered,
    which has their seconds of asking. Where the tolerance bears the rung for some of the weights alone, `full_bytes`
    and `full_agreement` are what all of them would come to; the agreement is None where they could not be asked.
    `needs` are the options without which a rung that was left out, whole or in part, cannot be kept, by the names of
    the component's parameters: `budget`, or the limits that it broke; empty where none would help.
    """

    name: str
    what: str
    kept: bool
    bytes: int
    max_abs_diff: float | None = None
    agreement: float | None = None
    seconds: float = 0.0
    reason: str = ""
    mean_abs_diff: float | None = None
    metric: float | None = None
    asking_seconds: float = 0.0
    forms: Mapping[str, int] | None = None
    full_bytes: int | None = None
    full_agreement: float | None = None
    needs: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Why it was not kept, or that some weights had to stay wider; empty where there is nothing to say."""
        if not self.kept or self.full_bytes is None:
            return self.reason
        return f"as many as the tolerance bears; all of them would reach {_reached(*self._left)}"

    def going_on(self, bytes_now: int) -> str:
        """Return what it would reach if more loss were allowed; empty where that is not smaller, or was not asked."""
        if (left := self.option(bytes_now)) is None:
            return ""
        whole, why = (" of all weights", "") if self.kept else ("", f" ({self.reason})")
        return f"{self.name}{whole} would reach {_reached(left.bytes, left.agreement)}{why}"

    def option(self, bytes_now: int) -> Option | None:
        """Return it as what is left to choose; None where that is not smaller, or was not asked."""
        size, agreement = self._left
        is_open = size is not None and size < bytes_now and (self.kept or agreement is not None)
        return Option(self.name, self.what, self.needs, size, agreement) if is_open else None

    @property
    def _left(self) -> tuple[int | None, float | None]:
        """Size and agreement of what the tolerance did not bear."""
        return (self.full_bytes, self.full_agreement) if self.kept else (self.bytes, self.agreement)


@dataclass(frozen=True)
class Option:
    """What could still make a model smaller that is over its budget; None where it was not tried.

    `needs` is by the names of the component's parameters, as in `Step`, and `rungs` or `samples`.
    """

    name: str
    what: str
    needs: tuple[str, ...]
    bytes: int | None = None
    agreement: float | None = None


def _reached(size: int | None, agreement: float | None) -> str:
    return format_size(size or 0) + ("" if agreement is None else f" at agreement {agreement:.4f}")


@dataclass(frozen=True)
class Optimized:
    """The result: sizes of the whole directory, the steps, and what the evidence was.

    `metric_name`, `metric_before` and `metric_after` are None without labels. The golden requests are added after the
    last step: `after_bytes` has their `golden_bytes`, the steps do not.
    """

    before_bytes: int
    after_bytes: int
    budget_bytes: int | None
    steps: tuple[Step, ...]
    sample_rows: int
    samples_generated: bool
    golden_requests: int
    digest: str
    notes: tuple[str, ...]
    metric_name: str | None = None
    metric_before: float | None = None
    metric_after: float | None = None
    golden_bytes: int = 0

    @property
    def fits(self) -> bool:
        """Whether the result is within the budget."""
        return self.budget_bytes is None or self.after_bytes <= self.budget_bytes

    def figures(self) -> dict[str, float]:
        """Return the figures of the result by name, for `Metrics`: answers are those of the last rung that was kept."""
        asked = [step for step in self.steps if step.kept and step.agreement is not None]
        figures = {
            "before_bytes": self.before_bytes,
            "after_bytes": self.after_bytes,
            "agreement": asked[-1].agreement if asked and asked[-1].agreement is not None else 1.0,
            "max_abs_diff": asked[-1].max_abs_diff if asked and asked[-1].max_abs_diff is not None else 0.0,
        }
        if self.metric_name is not None and self.metric_before is not None and self.metric_after is not None:
            figures[f"{self.metric_name}_before"] = self.metric_before
            figures[f"{self.metric_name}_after"] = self.metric_after
        return figures

    @property
    def _shrinking(self) -> list[Step]:
        """The rungs that are there to make the files smaller; of the others no limit of the tolerance decides."""
        from servegraph.optimize.rungs import RUNGS

        others = {rung.name for rung in RUNGS if not rung.may_shrink}
        return [step for step in self.steps if step.name not in others]

    def options(self) -> list[Option]:
        """Return what going on would take, none where it fits: rungs that were undone, or in part, or not named."""
        from servegraph.optimize.rungs import RUNGS  # which import TensorFlow, as who shows a result need not

        if self.fits:
            return []
        undone = [option for step in self._shrinking if (option := step.option(self.after_bytes))]
        tried = {step.name for step in self.steps}
        unnamed = [
            Option(rung.name, rung.what, ("rungs", "samples") if rung.trims and self.samples_generated else ("rungs",))
            for rung in RUNGS
            if rung.name not in tried and rung.may_shrink
        ]
        return undone + unnamed

    def shortfall(self) -> BudgetNotMet | None:
        """Return the error that says what was reached, and what going on would cost; None where it fits."""
        from servegraph.optimize.rungs import RUNGS

        if self.fits:
            return None
        tried = ", ".join(f"{s.name} {format_size(s.bytes)}" for s in self.steps if s.kept) or "none that helped"
        costs = [cost for step in self._shrinking if (cost := step.going_on(self.after_bytes))]
        tried_too = {step.name for step in self.steps}
        left_out = [r.name for r in RUNGS if r.is_default and r.may_shrink and r.name not in tried_too]
        further = [f"Add the rungs that --rungs left out: {', '.join(left_out)}."] if left_out else []
        going_on = f" To go on costs: {'; '.join(costs)}." if costs else ""
        return BudgetNotMet(
            f"The model has {format_size(self.after_bytes)} where {format_size(self.budget_bytes or 0)} are "
            f"allowed; it began with {format_size(self.before_bytes)}, and these rungs were kept: {tried}.{going_on}",
            fix=" ".join([*further, *([_MORE_LOSS] if costs else []), _QUOTA_ADVICE]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document of `servegraph optimize --json`."""
        shortfall = self.shortfall()
        document = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        return {
            **document,
            "fits": self.fits,
            "steps": [vars(step) for step in self.steps],
            "notes": list(self.notes),
            "shortfall": None if shortfall is None else shortfall.parts(),
            "options": [vars(option) for option in self.options()],
        }
