"""Whether a measured model may replace the one now live: values in, a verdict out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from servegraph.errors import InputError
from servegraph.machines.sizes import format_size, parse_size
from servegraph.metric_words import metric_name, metric_value, percent

if TYPE_CHECKING:
    from servegraph.answers.metric import Metric


@dataclass(frozen=True)
class Measured:
    """A model on the records: how well, how large, how long a call with one record takes."""

    metric: Metric
    size_bytes: int
    latency_ms: float


@dataclass(frozen=True)
class Criteria:
    """What a model must keep; None sets no limit."""

    min_metric: float | None = None
    max_metric_drop: float = 0.0
    max_bytes: int | None = None
    max_size_growth: float | None = None
    max_latency_ms: float | None = None
    max_latency_growth: float | None = None
    allow_incomparable: bool = False

    @classmethod
    def of(
        cls,
        *,
        min_metric: str = "",
        max_metric_drop: float = 0.0,
        max_size: str = "",
        max_size_growth: float = 0.0,
        max_latency_ms: float = 0.0,
        max_latency_growth: float = 0.0,
        allow_incomparable: bool = False,
    ) -> Criteria:
        """Return the criteria as a pipeline states them, where empty and 0 set no limit.

        Raises:
            InputError: no number or size, or one below 0 (code `BAD_CRITERIA`).
        """
        limits = (max_metric_drop, max_size_growth, max_latency_ms, max_latency_growth)
        try:
            least = float(min_metric) if min_metric else None
        except ValueError as exc:
            raise InputError(
                f"min_metric is {min_metric!r}, no number.",
                code="BAD_CRITERIA",
                fix="Give e.g. 0.9; empty sets no limit.",
            ) from exc
        if not all(limit >= 0 for limit in limits):
            raise InputError(f"A limit of {limits} is below 0.", code="BAD_CRITERIA", fix="0 sets no limit.")
        return cls(
            least,
            max_metric_drop,
            parse_size(max_size) if max_size else None,
            max_size_growth or None,
            max_latency_ms or None,
            max_latency_growth or None,
            allow_incomparable,
        )


@dataclass(frozen=True)
class Evaluation:
    """Both models as measured; `live` is None where there is none, or where `incomparable` says why it is silent."""

    candidate: Measured
    live: Measured | None
    reasons: tuple[str, ...]
    incomparable: str = ""
    measured_latency_ms: float = 0.0  # of the candidate as a server, 0 where that was not measured

    @property
    def latency_ms(self) -> float:
        """What one record takes: a server where that was measured, else a call."""
        return self.measured_latency_ms or self.candidate.latency_ms

    @property
    def verdict(self) -> Literal["blessed", "refused"]:
        """Whether it may be deployed."""
        return "refused" if self.reasons else "blessed"

    def figures(self) -> dict[str, float]:
        """Return what was measured, by name."""
        both = {"candidate": self.candidate, "live": self.live}
        measured = {"measured_latency_ms": self.measured_latency_ms} if self.measured_latency_ms else {}
        return measured | {
            f"{who}_{what}": value
            for who, found in both.items()
            if found is not None
            for what, value in (
                (found.metric.name, found.metric.value),
                ("size_bytes", float(found.size_bytes)),
                ("latency_ms", found.latency_ms),
            )
        }

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        return {"verdict": self.verdict, **asdict(self)}


def judge(
    candidate: Measured,
    live: Measured | None,
    criteria: Criteria,
    incomparable: str = "",
    measured_latency_ms: float = 0.0,
) -> Evaluation:
    """Return the verdict on `candidate`: what it lacks by itself, and against `live`.

    Against `live` calls are compared, of both in one process; the limit is for a server, where that was measured.
    """
    latency_ms = measured_latency_ms or candidate.latency_ms
    reasons = [*_alone(candidate, latency_ms, criteria), *(_against(candidate, live, criteria) if live else [])]
    if incomparable and not criteria.allow_incomparable:
        reasons.append(f"The live version cannot be compared with: {incomparable}")
    return Evaluation(candidate, live, tuple(reasons), incomparable, measured_latency_ms)


def _alone(found: Measured, latency_ms: float, criteria: Criteria) -> list[str]:
    reasons = []
    metric, least = found.metric, criteria.min_metric
    if least is not None and (metric.value < least if metric.higher_is_better else metric.value > least):
        reasons.append(f"The {metric_name(metric.name)} is {metric_value(metric.value)}; {least:.10g} is asked for.")
    if criteria.max_bytes is not None and found.size_bytes > criteria.max_bytes:
        reasons.append(
            f"It has {format_size(found.size_bytes)}; at most {format_size(criteria.max_bytes)} are allowed."
        )
    if criteria.max_latency_ms is not None and latency_ms > criteria.max_latency_ms:
        reasons.append(f"One record takes {latency_ms:.3g} ms; at most {criteria.max_latency_ms:g} ms are allowed.")
    return reasons


def _against(found: Measured, live: Measured, criteria: Criteria) -> list[str]:
    from servegraph.answers.metric import drop  # with numpy, which criteria alone do not need

    reasons = []
    lost, allowed = drop(live.metric, found.metric), criteria.max_metric_drop
    if lost > allowed:
        loss, most = f"a loss of {metric_value(lost)}", f"{allowed:g}"
        if not found.metric.higher_is_better:
            loss, most = f"a growth of {percent(lost)}", f"{100 * allowed:g} %"
        reasons.append(
            f"The {metric_name(found.metric.name)} is {metric_value(found.metric.value)}, that of the live version "
            f"{metric_value(live.metric.value)}: {loss} where {most} is allowed."
        )
    growths = (
        ("size", found.size_bytes / max(live.size_bytes, 1), criteria.max_size_growth),
        ("latency", found.latency_ms / live.latency_ms if live.latency_ms else 1.0, criteria.max_latency_growth),
    )
    for what, growth, limit in growths:
        if limit is not None and growth > limit:
            reasons.append(f"The {what} is {growth:.3g} times that of the live version; {limit:g} times is allowed.")
    return reasons
