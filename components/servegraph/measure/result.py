"""A measurement as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from servegraph.errors import InputError, in_short
from servegraph.measure.limits import How, Limits
from servegraph.serve.settings import Settings

FORMAT = 1


@dataclass(frozen=True)
class Batch:
    """Requests of `rows` rows, one after the other."""

    rows: int
    p50_ms: float
    p99_ms: float
    rows_per_second: float


@dataclass(frozen=True)
class Figures:
    """What one server did: from its start to its readiness, memory then and at the most, and its answers' times.

    `rate` are requests of one row a second on `connections` connections at once, their p99 `rate_p99_ms`.
    """

    load_seconds: float
    steady_memory_bytes: int
    peak_memory_bytes: int
    batches: tuple[Batch, ...]
    connections: int
    rate: float
    rate_p99_ms: float

    @property
    def latency_ms(self) -> float:
        """The median of requests of one row, one after the other."""
        return self.batches[0].p50_ms


@dataclass(frozen=True)
class Tried:
    """A change of settings: how many times faster (above 1) or slower it was, and why it was kept or not."""

    name: str
    kept: bool
    reason: str
    latency_ratio: float | None = None
    rate_ratio: float | None = None


@dataclass(frozen=True)
class Measurement:
    """What a model did under the limits, with the settings that were kept."""

    model_bytes: int
    limits: Limits
    how: How
    questions: str
    figures: Figures
    settings: Settings
    tried: tuple[Tried, ...] = ()
    notes: tuple[str, ...] = ()
    latency_goal_ms: float | None = field(default=None)

    @property
    def misses_latency_goal(self) -> bool:
        """Whether the median of one row is above the goal."""
        return self.latency_goal_ms is not None and self.figures.latency_ms > self.latency_goal_ms

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as the JSON document that `servegraph choose --measured` reads."""
        figures = self.figures
        return {
            "format": FORMAT,
            "model_bytes": self.model_bytes,
            "cpus": self.limits.cpus,
            "memory_limit_bytes": self.limits.memory_bytes,
            "limited_by": self.how,
            "questions": self.questions,
            "load_seconds": round(figures.load_seconds, 3),
            "steady_memory_bytes": figures.steady_memory_bytes,
            "peak_memory_bytes": figures.peak_memory_bytes,
            "latency_ms": figures.latency_ms,
            "latency_p99_ms": figures.batches[0].p99_ms,
            "latency_goal_ms": self.latency_goal_ms,
            "requests_per_second": round(figures.rate, 1),
            "requests_p99_ms": figures.rate_p99_ms,
            "connections": figures.connections,
            "batches": [vars(batch) for batch in figures.batches],
            "settings": self.settings.to_json(),
            "tried": [vars(tried) for tried in self.tried],
            "notes": list(self.notes),
        }


def choice_facts(document: Any, source: str = "That") -> dict[str, Any]:
    """Return what a choice of a machine takes from the JSON of a measurement, which comes from `source`.

    Raises:
        InputError: it is none (code `BAD_MEASUREMENT`).
    """
    try:
        if not isinstance(document, Mapping):
            raise KeyError("format")
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        return {
            "memory_bytes": int(document["peak_memory_bytes"]),
            "measured_latency_ms": float(document["latency_ms"]),
            "measured_rate": float(document["requests_per_second"]),
            "measured_cpus": int(document["cpus"]),
            "measured_model_bytes": int(document["model_bytes"]),
        }
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise InputError(
            f"{source} is not a measurement: {in_short(exc)}.",
            code="BAD_MEASUREMENT",
            fix="Write one with `servegraph measure`.",
        ) from exc
