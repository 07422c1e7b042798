"""What a choice is asked and what it answers: values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from servegraph.machines.catalog import Confidence

PlatformName = Literal["ai-platform", "vertex", "kserve", "local"]
PLATFORMS: tuple[PlatformName, ...] = ("ai-platform", "vertex", "kserve", "local")


@dataclass(frozen=True)
class ThisMachine:
    """The machine the local target serves on, as far as this process may use it."""

    vcpus: int
    memory_bytes: int


@dataclass(frozen=True)
class ChoiceRequest:
    """What is known of a model and what is wanted.

    `model_bytes` is the measured size of the whole directory, `memory_bytes` the measured need, `growth_bytes` what
    it takes in memory beyond that size: weights stored as int8 that are turned back, copies of a frozen graph.
    `accelerator` is `auto`, `none`, or a GPU by any of its names with an optional count, such as `T4:2`.
    `granted_model_bytes` is a quota that the platform granted above its limit; `this_machine` is for `local`.
    `measured_rate` are requests a second of one server on `measured_cpus` CPUs, `target_rate` those to be served;
    `measured_model_bytes` is the size of the model that was measured.
    """

    model_bytes: int
    today: date
    platform: PlatformName = "vertex"
    accelerator: str = "auto"
    memory_bytes: int | None = None
    growth_bytes: int = 0
    latency_goal_ms: float | None = None
    measured_latency_ms: float | None = None
    tag_sets: tuple[tuple[str, ...], ...] = ()
    custom_prediction_routine: bool = False
    granted_model_bytes: int | None = None
    this_machine: ThisMachine | None = None
    measured_rate: float | None = None
    measured_cpus: int | None = None
    measured_model_bytes: int | None = None
    target_rate: float | None = None

    @property
    def misses_latency_goal(self) -> bool:
        """Whether the measured latency on a CPU is above the goal; False where either is not known."""
        goal, measured = self.latency_goal_ms, self.measured_latency_ms
        return goal is not None and measured is not None and measured > goal


@dataclass(frozen=True)
class Memory:
    """The memory a model needs, and how that is known."""

    size_bytes: int
    rule: str


@dataclass(frozen=True)
class HourlyPrice:
    """What a machine with its GPUs costs an hour, on demand; as sure and as recent as its weakest part."""

    usd: float
    region: str
    date: str
    confidence: Confidence
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """A machine with its GPUs. `price` is None where none is known, and never a guess."""

    machine_type: str
    vcpus: float
    memory_bytes: int
    accelerator_type: str | None = None
    accelerator_count: int = 0
    price: HourlyPrice | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that name the machine."""
        return {
            "machine_type": self.machine_type,
            "accelerator_type": self.accelerator_type,
            "accelerator_count": self.accelerator_count,
            "price_per_hour": self.price.usd if self.price else None,
        }

    def __str__(self) -> str:
        """`n1-standard-4 with 1 x NVIDIA_TESLA_T4`."""
        gpus = f" with {self.accelerator_count} x {self.accelerator_type}" if self.accelerator_type else ""
        return self.machine_type + gpus


@dataclass(frozen=True)
class Rejected:
    """A machine type or a GPU that was not taken, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Resources:
    """What a container asks for, in Kubernetes' units."""

    requests: dict[str, str]
    limits: dict[str, str]


@dataclass(frozen=True)
class Capacity:
    """What the machine serves, by the measured rate, and what that costs; None is not known.

    `replicas` serve the target rate at no more than `utilization` of what was measured. A million predictions cost
    `price_per_million` at that utilization.
    """

    requests_per_second: float
    measured_cpus: int | None
    utilization: float
    target_rate: float | None = None
    replicas: int | None = None
    price_per_million: float | None = None
    price_per_hour: float | None = None


@dataclass(frozen=True)
class Decision:
    """One machine for a model, and the whole record of why."""

    platform: PlatformName
    machine: Machine
    model_bytes: int
    memory: Memory
    rule: str
    tags: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    rejected_accelerators: tuple[Rejected, ...] = ()
    fallbacks: tuple[Machine, ...] = ()  # in the order to try when the machine is out of stock
    warnings: tuple[str, ...] = ()  # each `CODE: sentence`
    reserved_vcpus: int = 0  # of the machine's, about so many run the platform's own processes
    resources: Resources | None = None  # of a container, on KServe
    capacity: Capacity | None = None  # where a rate was measured

    def to_json(self) -> dict[str, Any]:
        """Return the decision record."""
        price, resources = self.machine.price, self.resources
        return {
            "platform": self.platform,
            **self.machine.to_json(),
            "vcpus": self.machine.vcpus,
            "reserved_vcpus": self.reserved_vcpus,
            "machine_memory_bytes": self.machine.memory_bytes,
            "model_bytes": self.model_bytes,
            "memory_bytes": self.memory.size_bytes,
            "memory_rule": self.memory.rule,
            "rule": self.rule,
            "tags": list(self.tags),
            "price": {**vars(price), "sources": list(price.sources)} if price else None,
            "fallbacks": [machine.to_json() for machine in self.fallbacks],
            "rejected": [{"machine_type": r.name, "reason": r.reason} for r in self.rejected],
            "rejected_accelerators": [
                {"accelerator_type": r.name, "reason": r.reason} for r in self.rejected_accelerators
            ],
            "resources": dict(vars(resources)) if resources else None,
            "capacity": dict(vars(self.capacity)) if self.capacity else None,
            "warnings": list(self.warnings),
        }
