"""Invariants over every row of the machine catalogue."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from typing import Any

import pytest
import yaml

from servegraph.machines.catalog import FILE, Accelerator, Catalogue, MachineType, load, parse

CATALOGUE: Catalogue = load()
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
MACHINES = {machine.name: machine for p in CATALOGUE.platforms.values() for machine in p.machine_types}
# What today's Vertex AI and AI Platform enumerate for machineSpec.acceleratorType.
ACCELERATOR_NAME = re.compile(r"NVIDIA_[A-Z0-9_]+")


def every(kind: str, values: dict[str, Any]) -> Any:
    return pytest.mark.parametrize(kind, values.values(), ids=list(values))


@every("source", CATALOGUE.sources)
def test_sources_can_be_looked_up(source: Any) -> None:
    assert source.url.startswith("https://")
    assert re.fullmatch(r"20\d\d(-\d\d-\d\d)?", source.date)
    assert source.date <= date.today().isoformat()
    assert source.confidence in ("high", "medium", "low")
    assert source.confidence != "low" or source.note, "say why it is low"


def test_every_figure_names_a_source_and_every_source_is_used() -> None:
    named: set[str] = set()

    def visit(value: Any, key: str = "") -> None:
        if isinstance(value, dict):
            for inner_key, inner in value.items():
                visit(inner, str(inner_key))
        elif isinstance(value, list):
            for inner in value:
                visit(inner)
        elif key == "source" or key.endswith("_source"):
            named.add(value)

    visit({key: part for key, part in DOCUMENT.items() if key != "sources"})
    assert named == set(CATALOGUE.sources)


@every("machine", MACHINES)
def test_machines(machine: MachineType) -> None:
    assert machine.name.startswith(machine.family + "-")
    assert 1 <= machine.vcpus <= 32
    assert 10**9 < machine.memory_bytes < 10**12
    if machine.family == "n1":
        assert machine.name.endswith(f"-{machine.vcpus}")
        per_vcpu = {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9}[machine.name.split("-")[1]]
        assert float(machine.memory_gb) == pytest.approx(machine.vcpus * per_vcpu)


@every("platform", CATALOGUE.platforms)
def test_platforms(platform: Any) -> None:
    assert {machine.family for machine in platform.machine_types} == set(platform.families)
    names = [machine.name for machine in platform.machine_types]
    assert len(names) == len(set(names))
    order = [(machine.vcpus, machine.memory_gb) for machine in platform.machine_types]
    assert order == sorted(order)
    for family in platform.families.values():
        assert family.gpus == (family.name == "n1")
        assert family.max_model_bytes % 10**6 == 0, "limits are read as decimal"
    for limit in platform.limits.values():
        assert limit.value > 0


def test_the_limits_of_the_source_document() -> None:
    legacy = CATALOGUE.platforms["ai-platform"].families
    assert (legacy["mls1"].max_model_bytes, legacy["n1"].max_model_bytes) == (500_000_000, 10_000_000_000)
    assert "mls1" not in CATALOGUE.platforms["vertex"].families


@every("gpu", CATALOGUE.accelerators)
def test_accelerators(gpu: Accelerator) -> None:
    assert ACCELERATOR_NAME.fullmatch(gpu.name)
    assert 8 <= gpu.memory_gb <= 256
    assert bool(gpu.counts_by_max_vcpus) == (gpu.built_into is None), "on N1, or built into other machines"
    assert bool(gpu.platforms) == (gpu.built_into is None)
    assert all(machine.startswith(f"{gpu.built_into}-") and has > 0 for machine, has in gpu.counts_by_machine.items())
    assert set(gpu.platforms) <= set(CATALOGUE.platforms)
    assert (gpu.end_of_support is None) == (gpu.end_source is None)
    for counts in gpu.counts_by_max_vcpus.values():
        assert counts == tuple(sorted(counts))
        assert set(counts) <= {1, 2, 4, 8}


@every("gpu", {gpu.name: gpu for gpu in CATALOGUE.accelerators.values() if not gpu.built_into})
def test_every_n1_machine_has_a_count_of_every_gpu_and_more_vcpus_never_allow_fewer_gpus(
    gpu: Accelerator,
) -> None:
    sizes = sorted({machine.vcpus for machine in MACHINES.values() if machine.family == "n1"})
    smallest = [min(gpu.counts(vcpus)) for vcpus in sizes]
    assert smallest == sorted(smallest)
    assert gpu.counts(64) == ()


@pytest.mark.parametrize(
    ("name", "vcpus", "counts"),
    [
        ("NVIDIA_TESLA_T4", 2, (1, 2, 4)),
        ("NVIDIA_TESLA_T4", 16, (1, 2, 4)),
        ("NVIDIA_TESLA_T4", 32, (2, 4)),
        ("NVIDIA_TESLA_P4", 32, (2, 4)),
        ("NVIDIA_TESLA_P100", 16, (1, 2, 4)),
        ("NVIDIA_TESLA_V100", 8, (1, 2, 4, 8)),
        ("NVIDIA_TESLA_V100", 16, (2, 4, 8)),
        ("NVIDIA_TESLA_V100", 32, (4, 8)),
        ("NVIDIA_TESLA_K80", 4, (1, 2, 4, 8)),
    ],
)
def test_the_published_matrix(name: str, vcpus: int, counts: tuple[int, ...]) -> None:
    assert CATALOGUE.accelerators[name].counts(vcpus) == counts


@every("price", {"/".join(key): price for key, price in CATALOGUE.prices.items()})
def test_prices(price: Any) -> None:
    assert price.item in MACHINES or price.item in CATALOGUE.accelerators
    assert 0 < price.usd < 100
    assert re.fullmatch(r"[a-z]+-[a-z]+\d", price.region)
    assert price.confidence in ("high", "medium", "low")


def test_prices_never_contradict_the_order_that_stands_in_for_them() -> None:
    vertex = CATALOGUE.platforms["vertex"]
    usd = [CATALOGUE.prices["vertex", machine.name].usd for machine in vertex.machine_types]
    assert usd == sorted(usd)
    priced = [name for name in CATALOGUE.accelerators if ("vertex", name) in CATALOGUE.prices]
    usd = [CATALOGUE.prices["vertex", name].usd for name in priced]
    assert usd == sorted(usd)


def test_computed_prices_follow_from_the_rates_that_they_name() -> None:
    for (_, item), price in CATALOGUE.prices.items():
        if price.source.key == "vertex-pricing-computed":
            machine = MACHINES[item]
            rate = 1.15 * (machine.vcpus * 0.031611 + float(machine.memory_gb) * 0.004237)
            assert float(price.usd) == pytest.approx(rate, abs=1e-4)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["accelerators"]["NVIDIA_TESLA_T4"].update(memory_source="nowhere"),
        lambda d: d["accelerators"]["NVIDIA_TESLA_T4"].update(colour="green"),
        lambda d: d["platforms"]["vertex"]["families"]["n1"].pop("source"),
        lambda d: d["platforms"]["ai-platform"].pop("ended_source"),
        lambda d: d["prices"][0]["usd_per_hour"]["n1-standard-2"].pop("source"),
        lambda d: d["machine_types"][0]["types"]["mls1-c1-m2"].pop("vcpus"),
    ],
)
def test_a_row_with_a_wrong_field_or_without_a_source_does_not_load(edit: Any) -> None:
    document = yaml.safe_load(FILE.read_text())
    edit(document)
    with pytest.raises((KeyError, TypeError, ValueError)):
        parse(yaml.safe_dump(document))


def test_importing_parses_nothing() -> None:
    script = (
        "import sys, servegraph.machines.choose\n"
        "heavy = ('yaml', 'tensorflow', 'kfp', 'numpy', 'google.cloud.storage')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
