"""What a step of a run gets: CPU, memory and accelerators, within what the engine gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from servegraph.errors import InputError

EngineName = Literal["vertex", "kfp"]
_CPU = re.compile(r"(\d+(?:\.\d+)?)(m?)")
_MEMORY = re.compile(r"(\d+)(Ki|Mi|Gi|Ti|K|M|G|T)?")
_BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_RESOURCE_NAME = re.compile(r"[a-z0-9.-]+\.[a-z]+/[a-zA-Z0-9._-]+")  # of a device plugin, like nvidia.com/gpu


@dataclass(frozen=True)
class Limits:
    """The most that a step can ask for. `accelerators` empty: whatever the cluster calls them."""

    cpus: float
    memory_gb: float
    accelerators: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()


# Vertex AI: https://cloud.google.com/vertex-ai/docs/pipelines/machine-types. A cluster's limits are its own.
LIMITS: dict[EngineName, Limits] = {
    "vertex": Limits(
        cpus=96,
        memory_gb=624,
        accelerators=(
            *("NVIDIA_TESLA_P4", "NVIDIA_TESLA_P100", "NVIDIA_TESLA_T4", "NVIDIA_TESLA_V100", "NVIDIA_TESLA_A100"),
            *("NVIDIA_A100_80GB", "NVIDIA_L4", "NVIDIA_H100_80GB", "NVIDIA_H100_MEGA_80GB", "NVIDIA_H200_141GB"),
            *("NVIDIA_B200", "NVIDIA_GB200", "NVIDIA_RTX_PRO_6000", "TPU_V2", "TPU_V3"),
        ),
        counts=(1, 2, 4, 8, 16, 32),
    ),
    "kfp": Limits(cpus=float("inf"), memory_gb=float("inf")),
}


@dataclass(frozen=True)
class StepResources:
    """What one step asks for; None leaves it to the engine. Texts are as KFP has them: `4`, `500m`, `16G`, `16Gi`."""

    cpu: str | None = None
    memory: str | None = None
    accelerator: str | None = None
    accelerator_count: int = 1

    def to_ir(self, engine: EngineName) -> dict[str, Any]:
        """Return the resources of a container in the IR: each as text, and as the number that older engines read.

        Raises:
            InputError: no such quantity, or more than the engine gives (code `BAD_RESOURCES`).
        """
        limits = LIMITS[engine]
        found: dict[str, Any] = {}
        if self.cpu is not None:
            cpus = _cpus(self.cpu)
            _at_most(cpus, limits.cpus, f"{self.cpu} CPUs", engine)
            found |= {"cpuLimit": cpus, "resourceCpuLimit": self.cpu}
        if self.memory is not None:
            gigabytes = _bytes(self.memory) / 10**9
            _at_most(gigabytes, limits.memory_gb, f"{self.memory} of memory", engine)
            found |= {"memoryLimit": gigabytes, "resourceMemoryLimit": self.memory}
        if self.accelerator is not None:
            _check_accelerator(self.accelerator, self.accelerator_count, engine)
            count, kind = str(self.accelerator_count), self.accelerator
            found["accelerator"] = {"count": count, "type": kind, "resourceCount": count, "resourceType": kind}
        return found


def parse(texts: Sequence[str]) -> dict[str, StepResources]:
    """Return the resources by step of texts like `train.cpu=8`, `train.memory=32G`, `train.accelerator=NVIDIA_L4:2`.

    Raises:
        InputError: a text is not of that form (code `BAD_RESOURCES`).
    """
    values: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = re.fullmatch(r"([\w-]+)\.(cpu|memory|accelerator)=(.+)", text)
        if not match:
            fix = "Write STEP.cpu=8, STEP.memory=32G or STEP.accelerator=TYPE:COUNT."
            raise InputError(f"{text!r} are no resources of a step.", code="BAD_RESOURCES", fix=fix)
        values.setdefault(match[1].replace("_", "-"), {})[match[2]] = match[3]
    return from_mapping(values)


def from_mapping(values: Mapping[str, Any]) -> dict[str, StepResources]:
    """Return the resources by step of `{step: {cpu: 8, memory: 32G, accelerator: NVIDIA_L4:2}}`, as in a file."""
    found = {}
    for step, row in values.items():
        if not isinstance(row, Mapping) or not set(row) <= {"cpu", "memory", "accelerator"}:
            fix = "A step has cpu, memory and accelerator."
            raise InputError(f"The resources of {step} are {row!r}.", code="BAD_RESOURCES", fix=fix)
        given = {name: str(value) for name, value in row.items()}
        kind, _, count = given.get("accelerator", "").partition(":")
        if count and not re.fullmatch(r"[1-9]\d?", count):
            raise InputError(
                f"{count!r} is no number of accelerators of {step}.",
                code="BAD_RESOURCES",
                fix="Write TYPE:N, N a whole number from 1 to 99.",
            )
        found[step] = StepResources(given.get("cpu"), given.get("memory"), kind or None, int(count or 1))
    return found


def _cpus(text: str) -> float:
    match = _CPU.fullmatch(text)
    if not match or not float(match[1]):
        raise InputError(f"{text!r} is no number of CPUs.", code="BAD_RESOURCES", fix="Write 4, 0.5 or 500m.")
    return float(match[1]) / (1000 if match[2] else 1)


def _bytes(text: str) -> int:
    match = _MEMORY.fullmatch(text)
    if not match or not int(match[1]):
        raise InputError(f"{text!r} is no amount of memory.", code="BAD_RESOURCES", fix="Write 16G or 16Gi.")
    return int(match[1]) * _BYTES[match[2] or ""]


def _at_most(value: float, limit: float, what: str, engine: EngineName) -> None:
    if value > limit:
        raise InputError(
            f"{engine} gives a step at most {limit:g}, not {what}.",
            code="BAD_RESOURCES",
            fix=f"Ask for {limit:g} or less, or run the step on another engine.",
        )


def _check_accelerator(kind: str, count: int, engine: EngineName) -> None:
    limits = LIMITS[engine]
    if engine == "kfp" and not _RESOURCE_NAME.fullmatch(kind):
        fix = "Give the name that the cluster has for it, like nvidia.com/gpu."
        raise InputError(f"{kind!r} is no accelerator of a Kubernetes cluster.", code="BAD_RESOURCES", fix=fix)
    if limits.accelerators and kind not in limits.accelerators:
        fix = f"Give one of {', '.join(limits.accelerators)}."
        raise InputError(f"{engine} has no accelerator {kind!r}.", code="BAD_RESOURCES", fix=fix)
    if limits.counts and count not in limits.counts:
        raise InputError(
            f"{engine} gives {limits.counts} accelerators, not {count}.",
            code="BAD_RESOURCES",
            fix=f"Ask for {', '.join(map(str, limits.counts))}.",
        )
