"""What came of optimizing: the steps with their evidence, and the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servegraph.errors import BudgetNotMet
from servegraph.machines.sizes import format_size

_MORE_LOSS = "Allow more loss (--min-agreement, --max-metric-drop, --max-abs-diff; in a pipeline min_agreement)."
_QUOTA_ADVICE = (
    "Leave assets out or shorten vocabularies (`servegraph optimize --rungs` with trim), split the model, or ask for "
    "more quota and state it with a larger budget (--budget, in a pipeline budget)."
)


@dataclass(frozen=True)
class Step:
    """One rung that was tried. `bytes` is the size the model had with it; `reason` says why it was not kept.

    `max_abs_diff` and `mean_abs_diff` are through the first loader that takes the original (a session, if one does),
    `agreement` is the worst of all, `forms` counts the weights by the form they are stored in. Of `seconds`,
    `asking_seconds` went into asking the changed model. Rungs that were asked together have what the last one answered,
    which has their seconds of asking.
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

    def shortfall(self) -> BudgetNotMet | None:
        """Return the error that says what was reached, and what going on would cost; None where it fits."""
        from servegraph.optimize.rungs import RUNGS  # which import TensorFlow, as who shows a result need not

        if self.fits:
            return None
        tried = ", ".join(f"{s.name} {format_size(s.bytes)}" for s in self.steps if s.kept) or "none that helped"
        costs = [
            f"{s.name} would reach {format_size(s.bytes)} at agreement {s.agreement:.4f} ({s.reason})"
            for s in self.steps
            if not s.kept and s.agreement is not None and s.bytes < self.after_bytes
        ]
        left_out = [r.name for r in RUNGS if r.is_default and r.name not in {step.name for step in self.steps}]
        further = [f"Add the rungs that --rungs left out: {', '.join(left_out)}."] if left_out else []
        going_on = f" To go on costs: {'; '.join(costs)}." if costs else ""
        return BudgetNotMet(
            f"The model has {format_size(self.after_bytes)} where {format_size(self.budget_bytes or 0)} are "
            f"allowed; it began with {format_size(self.before_bytes)}, and these rungs were kept: {tried}.{going_on}",
            fix=" ".join([*further, *([_MORE_LOSS] if costs else []), _QUOTA_ADVICE]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document of `servegraph optimize --json`."""
        document = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        return {
            **document,
            "fits": self.fits,
            "steps": [vars(step) for step in self.steps],
            "notes": list(self.notes),
        }
