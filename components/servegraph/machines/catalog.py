"""The machine catalogue: `load()` parses `catalogue.yaml` into frozen dataclasses, once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from servegraph.errors import InputError

Confidence = Literal["high", "medium", "low"]

FILE = Path(__file__).with_name("catalogue.yaml")
GB = 10**9


@dataclass(frozen=True)
class Source:
    """Where figures come from: a page, the day it was true, and how sure the figures are."""

    key: str
    url: str
    date: str  # ISO 8601, to the year where no more is known
    confidence: Confidence
    note: str = ""


@dataclass(frozen=True)
class Limit:
    """One figure of a platform."""

    value: int
    source: Source


@dataclass(frozen=True)
class Family:
    """A family of machines on a platform and what it is allowed."""

    name: str
    max_model_bytes: int
    gpus: bool
    custom_prediction_routine: bool
    source: Source


@dataclass(frozen=True)
class MachineType:
    """A machine; `memory_gb` as Google prints it."""

    name: str
    family: str
    vcpus: int
    memory_gb: Decimal
    source: Source

    @property
    def memory_bytes(self) -> int:
        """Memory of the machine in the decimal reading."""
        return int(self.memory_gb * GB)


@dataclass(frozen=True)
class Platform:
    """A platform with its machines in cost order (vCPUs, then memory) and its limits by name."""

    name: str
    title: str
    families: dict[str, Family]
    machine_types: tuple[MachineType, ...]
    limits: dict[str, Limit]
    ended: date | None = None

    @property
    def largest_family(self) -> Family:
        """The family that may hold the largest model."""
        return max(self.families.values(), key=lambda family: family.max_model_bytes)


@dataclass(frozen=True)
class Accelerator:
    """A GPU. N1 machines have it in `counts(vcpus)`; one that is `built_into` another family in none.

    What is known of that family's machines is in `counts_by_machine`: each has that many, no more and no fewer.
    """

    name: str
    memory_gb: int
    platforms: tuple[str, ...]
    counts_by_max_vcpus: dict[int, tuple[int, ...]]
    built_into: str | None = None
    counts_by_machine: Mapping[str, int] = field(default_factory=dict)
    end_of_support: date | None = None  # date.min: it is past, and the day is not known
    end_source: Source | None = None

    @property
    def memory_bytes(self) -> int:
        """Memory of one GPU in the decimal reading."""
        return self.memory_gb * GB

    def counts(self, vcpus: int) -> tuple[int, ...]:
        """Return how many of it an N1 machine with `vcpus` may have; empty for none."""
        holding = [most for most in self.counts_by_max_vcpus if vcpus <= most]
        return self.counts_by_max_vcpus[min(holding)] if holding else ()

    def has_ended(self, today: date) -> bool:
        """Whether it is at or past its end of support."""
        return self.end_of_support is not None and self.end_of_support <= today


@dataclass(frozen=True)
class Price:
    """What one machine or one GPU costs an hour, on demand."""

    item: str
    usd: Decimal
    region: str
    confidence: Confidence
    source: Source


@dataclass(frozen=True)
class Catalogue:
    """All of `catalogue.yaml`; prices by platform and item."""

    sources: dict[str, Source]
    platforms: dict[str, Platform]
    accelerators: dict[str, Accelerator]
    prices: dict[tuple[str, str], Price]

    def accelerator(self, name: str) -> Accelerator:
        """Return a GPU by any of the names people use: `NVIDIA_TESLA_T4`, `nvidia-tesla-t4`, `T4`.

        Raises:
            InputError: there is none of that name (code `UNKNOWN_ACCELERATOR`).
        """
        wanted = name.strip().upper().replace("-", "_")
        for prefix in ("", "NVIDIA_", "NVIDIA_TESLA_"):
            if found := self.accelerators.get(prefix + wanted):
                return found
        raise InputError(
            f"{name!r} is not a GPU of the catalogue, which has {', '.join(self.accelerators)}.",
            code="UNKNOWN_ACCELERATOR",
            fix="Give auto, none or one of these, like NVIDIA_TESLA_T4 or T4.",
        )


@functools.cache
def load() -> Catalogue:
    """Return the catalogue; the file is parsed at the first call."""
    return parse(FILE.read_text(encoding="utf-8"))


def parse(text: str) -> Catalogue:
    """Return the catalogue that `text` holds.

    Raises:
        KeyError, TypeError, ValueError: a row has a field too many or too few, or a source that is not there.
    """
    document = _read_yaml(text)
    sources = {key: _source(key, **row) for key, row in document["sources"].items()}
    machines = [
        (
            set(group["platforms"]),
            MachineType(name, group["family"], source=sources[group["source"]], **_exact(row)),
        )
        for group in document["machine_types"]
        for name, row in group["types"].items()
    ]
    platforms = {}
    for name, row in document["platforms"].items():
        own = sorted((m for on, m in machines if name in on), key=lambda m: (m.vcpus, m.memory_gb))
        platforms[name] = _platform(name, tuple(own), sources, **row)
    prices = {
        (group["platform"], item): _price(item, group["region"], sources, **row)
        for group in document["prices"]
        for item, row in group["usd_per_hour"].items()
    }
    accelerators = {name: _accelerator(name, sources, **row) for name, row in document["accelerators"].items()}
    return Catalogue(sources, platforms, accelerators, prices)


def _read_yaml(text: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where libyaml is built in
    return yaml.load(text, Loader=loader)  # noqa: S506  both are safe loaders


def _source(key: str, url: str, date: Any, confidence: Confidence, note: str = "") -> Source:
    return Source(key, url, str(date), confidence, note)


def _platform(
    name: str,
    machine_types: tuple[MachineType, ...],
    sources: dict[str, Source],
    *,
    title: str,
    families: dict[str, Any],
    limits: dict[str, Any],
    ended: date | None = None,
    ended_source: str | None = None,
) -> Platform:
    if ended is not None and ended_source not in sources:
        raise KeyError(ended_source)
    return Platform(
        name=name,
        title=title,
        families={key: Family(key, **_sourced(row, sources)) for key, row in families.items()},
        machine_types=machine_types,
        limits={key: Limit(**_sourced(row, sources)) for key, row in limits.items()},
        ended=ended,
    )


def _accelerator(
    name: str,
    sources: dict[str, Source],
    *,
    memory_gb: int,
    memory_source: str,
    platforms: tuple[str, ...] = (),
    counts_by_max_vcpus: dict[int, list[int]] | None = None,
    counts_source: str | None = None,
    built_into: str | None = None,
    counts_by_machine: dict[str, int] | None = None,
    end_of_support: date | Literal["past"] | None = None,
    end_source: str | None = None,
) -> Accelerator:
    counts = counts_by_max_vcpus or {}
    for needed, source in (
        (True, memory_source),
        (bool(counts or counts_by_machine), counts_source),
        (bool(end_of_support), end_source),
    ):
        if needed and source not in sources:
            raise KeyError(source)
    return Accelerator(
        name=name,
        memory_gb=memory_gb,
        platforms=tuple(platforms),
        counts_by_max_vcpus={most: tuple(allowed) for most, allowed in counts.items()},
        built_into=built_into,
        counts_by_machine=counts_by_machine or {},
        end_of_support=date.min if end_of_support == "past" else end_of_support,
        end_source=sources[end_source] if end_source else None,
    )


def _price(
    item: str,
    region: str,
    sources: dict[str, Source],
    *,
    usd: float,
    source: str,
    confidence: Confidence | None = None,
) -> Price:
    found = sources[source]
    return Price(item, Decimal(str(usd)), region, confidence or found.confidence, found)


def _sourced(row: dict[str, Any], sources: dict[str, Source]) -> dict[str, Any]:
    return {**row, "source": sources[row["source"]]}


def _exact(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "memory_gb": Decimal(str(row["memory_gb"]))}
