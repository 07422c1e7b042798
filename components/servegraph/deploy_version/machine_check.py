"""Whether a platform has the machine that a version is to run on, by the catalogue: asked before anything is sent."""

from __future__ import annotations

import re
from datetime import date

from servegraph.deploy_version.plan import ModelFacts
from servegraph.errors import DeployRefused
from servegraph.machines import gpus
from servegraph.machines.catalog import Accelerator, Catalogue, MachineType, Platform, load
from servegraph.machines.n1 import hourly_price
from servegraph.machines.sizes import format_size
from servegraph.serve.state import ServingConfig

# Families that Vertex AI has besides those of the catalogue. Source: "vertex-machine-types" of the catalogue.
OTHER_FAMILIES = {"vertex": ("e2", "n2", "n2d", "c2", "c2d", "c3", "g2", "g4", "a2", "a3", "a4", "a4x")}
_NOT_MACHINES = (None, "container", "local")  # what a choice says where there are no machine types


def check_machine(
    platform_name: str, config: ServingConfig, model: ModelFacts, today: date, catalogue: Catalogue | None = None
) -> tuple[str, ...]:
    """Return warnings about the machine of `config`, which the platform has as far as the catalogue knows.

    Raises:
        DeployRefused: it has not, or not for this model (codes `MACHINE_NOT_OFFERED`, `ACCELERATOR_…`,
            `MODEL_TOO_LARGE`, `TOO_MANY_FILES`).
        InputError: the accelerator is not known (code `UNKNOWN_ACCELERATOR`).
    """
    catalogue = catalogue or load()
    platform = catalogue.platforms[platform_name]
    gpu = _named_gpu(catalogue, config.accelerator_type)
    if gpu is not None and gpu.has_ended(today):
        found = gpus.objection(gpu, 0, today)
        assert found is not None
        raise DeployRefused(f"{gpu.name} {found.reason}.", code=found.code, fix=found.fix)
    warnings = [warning] if gpu and (warning := gpus.ending_warning(gpu, today)) else []
    if config.machine_type not in _NOT_MACHINES:
        warnings += _check_type(catalogue, platform, config, gpu, model)
    _check_files(platform, model)
    return tuple(warnings)


def price_per_hour(platform_name: str, config: ServingConfig, replicas: int) -> float | None:
    """Return USD an hour on demand for the replicas that always run, or None where it is not known."""
    if config.machine_type in _NOT_MACHINES:
        return None
    gpu = _named_gpu(load(), config.accelerator_type)
    name = gpu.name if gpu else None
    price = hourly_price(load(), platform_name, config.machine_type or "", name, config.accelerator_count)
    return None if price is None else round(price.usd * replicas, 6)


def _named_gpu(catalogue: Catalogue, accelerator: str | None) -> Accelerator | None:
    """The GPU of that name; Kubernetes' `nvidia.com/gpu` is any of them."""
    return None if accelerator is None or "/" in accelerator else catalogue.accelerator(accelerator)


def _check_type(
    catalogue: Catalogue, platform: Platform, config: ServingConfig, gpu: Accelerator | None, model: ModelFacts
) -> tuple[str, ...]:
    name = str(config.machine_type)
    machine = next((machine for machine in platform.machine_types if machine.name == name), None)
    family = name.split("-")[0]
    if machine is not None:
        _check_family(platform, machine, model)
        if gpu is not None:
            _check_gpu(platform, machine, gpu, config.accelerator_count)
        return ()
    if family in OTHER_FAMILIES.get(platform.name, ()) and re.fullmatch(r"[a-z0-9]+-[a-z0-9-]+", name):
        if gpu is not None and gpu.built_into != family:
            raise _refused("ACCELERATOR_NOT_ON_MACHINE", f"{name} cannot have {gpu.name}.")
        if gpu is not None:
            _check_built_in(catalogue, name, gpu, config.accelerator_count)
        return (f"MACHINE_NOT_CHECKED: {name} is not in the catalogue, so little about it could be checked.",)
    have = ", ".join(machine.name for machine in platform.machine_types) or "none to name: the cluster picks the node"
    raise _refused("MACHINE_NOT_OFFERED", f"{platform.title} has no machine {name}; it has {have}.")


def _check_family(platform: Platform, machine: MachineType, model: ModelFacts) -> None:
    limit = platform.families[machine.family].max_model_bytes
    if model.size_bytes > limit:
        raise DeployRefused(
            f"The model has {format_size(model.size_bytes)}, and {machine.name} takes up to {format_size(limit)}.",
            code="MODEL_TOO_LARGE",
            fix=f"Shrink it with `servegraph optimize --budget {limit}`, or take a larger machine.",
        )


def _check_gpu(platform: Platform, machine: MachineType, gpu: Accelerator, count: int) -> None:
    if not platform.families[machine.family].gpus or platform.name not in gpu.platforms:
        raise _refused("ACCELERATOR_NOT_ON_MACHINE", f"{machine.name} on {platform.title} cannot have {gpu.name}.")
    allowed = gpu.counts(machine.vcpus)
    if count not in allowed:
        may = ", ".join(map(str, allowed)) or "none"
        raise _refused("BAD_ACCELERATOR_COUNT", f"{machine.name} cannot have {count} x {gpu.name}, only {may}.")


def _check_built_in(catalogue: Catalogue, machine: str, gpu: Accelerator, count: int) -> None:
    """Refuse another GPU, or another number of it, than the machine comes with; most are not in the catalogue."""
    for other in catalogue.accelerators.values():
        has = other.counts_by_machine.get(machine)
        if has is not None and (other, has) != (gpu, count):
            code = "BAD_ACCELERATOR_COUNT" if other is gpu else "ACCELERATOR_NOT_ON_MACHINE"
            raise _refused(code, f"{machine} comes with {has} x {other.name}, not with {count} x {gpu.name}.")


def _check_files(platform: Platform, model: ModelFacts) -> None:
    most = platform.limits.get("max_model_files")
    if most is not None and model.file_count > most.value:
        raise DeployRefused(
            f"The model has {model.file_count} files, and {platform.title} takes up to {most.value}.",
            code="TOO_MANY_FILES",
            fix="Put small assets together into one file.",
        )


def _refused(code: str, message: str) -> DeployRefused:
    return DeployRefused(message, code=code, fix="Let `servegraph choose` pick the machine, or name another one.")
