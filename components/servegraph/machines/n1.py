"""AI Platform and Vertex AI: the cheapest machine that holds the model; GPUs only on N1 machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from servegraph.errors import NoMachineFits
from servegraph.machines import gpus, quota
from servegraph.machines.catalog import Accelerator, Catalogue, MachineType, Platform, Price
from servegraph.machines.decision import ChoiceRequest, Decision, HourlyPrice, Machine, Memory, Rejected
from servegraph.machines.sizes import format_size

MAX_FALLBACKS = 5
_CONFIDENCES = ("low", "medium", "high")


@dataclass(frozen=True)
class _Question:
    """One request with all that its answer is made from."""

    request: ChoiceRequest
    memory: Memory
    policy: gpus.Policy
    catalogue: Catalogue
    platform: Platform
    limits: dict[str, int]  # the most bytes on disk, by each family that may serve the model


def choose_machine(request: ChoiceRequest, memory: Memory, policy: gpus.Policy, catalogue: Catalogue) -> Decision:
    """Return the cheapest machine of the request's platform that holds the model, with a GPU where wanted.

    Raises:
        NoMachineFits: none holds it (code `NO_MACHINE_FITS`) or can have the GPU (codes `ACCELERATOR_…`).
    """
    platform = catalogue.platforms[request.platform]
    question = _Question(request, memory, policy, catalogue, platform, _limits(platform, request))
    objections = {machine.name: _objection(machine, question) for machine in platform.machine_types}
    fitting = [machine for machine in platform.machine_types if objections[machine.name] is None]
    if not fitting:
        raise _nothing_fits(question)
    candidates: list[Machine] = []
    rejected_gpus: list[Rejected] = []
    if policy.kind == "named" or (policy.kind == "auto" and request.misses_latency_goal):
        usable, rejected_gpus = _usable_gpus(question)
        candidates = _with_gpus(fitting, usable, question)
    if not candidates:
        candidates = [_machine(machine, question) for machine in fitting]
    chosen, *others = sorted(candidates, key=_cost_order(candidates, catalogue))
    return Decision(
        platform=request.platform,
        machine=chosen,
        model_bytes=request.model_bytes,
        memory=memory,
        rule=_rule(chosen, question),
        rejected=tuple(_rejected(chosen, others, objections)),
        rejected_accelerators=tuple(rejected_gpus),
        fallbacks=_fallbacks(chosen, others),
        warnings=tuple(_warnings(chosen, question)),
        reserved_vcpus=platform.limits["reserved_vcpus"].value if "reserved_vcpus" in platform.limits else 0,
    )


def _limits(platform: Platform, request: ChoiceRequest) -> dict[str, int]:
    """The limits on disk of the families that may serve the model; a granted quota lifts the highest one."""
    limits = {
        name: family.max_model_bytes
        for name, family in platform.families.items()
        if family.custom_prediction_routine or not request.custom_prediction_routine
    }
    highest = max(limits, key=limits.__getitem__)
    return limits | {highest: max(limits[highest], request.granted_model_bytes or 0)}


def _objection(machine: MachineType, question: _Question) -> str | None:
    """What keeps a machine from holding the model, or None."""
    model_bytes, memory_bytes = question.request.model_bytes, question.memory.size_bytes
    limit = question.limits.get(machine.family)
    if limit is None:
        return f"takes no custom prediction routine; only {_names(question.limits)} does"
    if model_bytes > limit:
        return f"takes models up to {format_size(limit)}; this one has {format_size(model_bytes)}"
    if memory_bytes > machine.memory_bytes:
        return f"has {machine.memory_gb} GB of memory; the model needs {format_size(memory_bytes)}"
    return None


def _nothing_fits(question: _Question) -> NoMachineFits:
    """The refusal. Its steps come in this order: optimize, reduce precision, and only then ask for quota."""
    request, platform, limit = question.request, question.platform, max(question.limits.values())
    what = "The custom prediction routine" if request.custom_prediction_routine else "The model"
    if request.model_bytes > limit:
        return NoMachineFits(
            f"{what} has {format_size(request.model_bytes)} on disk ({request.model_bytes} bytes), and "
            f"{platform.title} takes up to {format_size(limit)} on {_names(question.limits)}.",
            fix=f"Optimize it further (servegraph optimize --budget {limit}), reduce its precision, and only "
            f"then {quota.ASK}. Give a granted one with --granted-quota.",
        )
    allowed = [machine for machine in platform.machine_types if machine.family in question.limits]
    largest = max(allowed, key=lambda machine: machine.memory_gb)
    return NoMachineFits(
        f"{what} needs {format_size(question.memory.size_bytes)} of memory ({question.memory.rule}), and the "
        f"largest machine that {platform.title} has for it, {largest.name}, has {largest.memory_gb} GB.",
        fix="Optimize it further with `servegraph optimize`, or reduce its precision.",
    )


def _usable_gpus(question: _Question) -> tuple[list[Accelerator], list[Rejected]]:
    """The GPUs that could be had, and the others with the reason; a named one among these is a refusal."""
    named = question.policy.accelerator
    asked = [named] if named else [gpu for gpu in question.catalogue.accelerators.values() if not gpu.built_into]
    usable, rejected = [], []
    for gpu in asked:
        found = gpus.objection_on_n1(gpu, question.platform, question.memory.size_bytes, question.request.today)
        if found is None:
            usable.append(gpu)
        elif named:
            raise NoMachineFits(f"{gpu.name} {found.reason}.", code=found.code, fix=found.fix)
        else:
            rejected.append(Rejected(gpu.name, found.reason))
    return usable, rejected


def _with_gpus(fitting: list[MachineType], usable: list[Accelerator], question: _Question) -> list[Machine]:
    """All fitting machines with each usable GPU, in the count asked for or the smallest that is allowed."""
    count, platform = question.policy.count, question.platform
    machines = [
        _machine(machine, question, gpu, count or min(gpu.counts(machine.vcpus)))
        for machine in fitting
        for gpu in usable
        if platform.families[machine.family].gpus
        and (gpu.counts(machine.vcpus) if count is None else count in gpu.counts(machine.vcpus))
    ]
    if question.policy.accelerator and not machines:
        raise NoMachineFits(
            f"No {platform.title} machine that can serve the model can have {question.policy}.",
            code="ACCELERATOR_NOT_ON_MACHINE",
            fix="Leave the count out, give another GPU, or serve it on a CPU with --accelerator none.",
        )
    return machines


def hourly_price(
    catalogue: Catalogue, platform: str, machine_type: str, gpu: str | None = None, count: int = 0
) -> HourlyPrice | None:
    """Return what a machine with `count` of `gpu` costs an hour, or None where a part of it has no price."""
    parts = [(1, catalogue.prices.get((platform, machine_type)))]
    if gpu is not None:
        parts.append((count, catalogue.prices.get((platform, gpu))))
    return _total(parts)


def _machine(machine: MachineType, question: _Question, gpu: Accelerator | None = None, count: int = 0) -> Machine:
    name = gpu.name if gpu else None
    return Machine(
        machine_type=machine.name,
        vcpus=machine.vcpus,
        memory_bytes=machine.memory_bytes,
        accelerator_type=name,
        accelerator_count=count,
        price=hourly_price(question.catalogue, question.platform.name, machine.name, name, count),
    )


def _total(parts: list[tuple[int, Price | None]]) -> HourlyPrice | None:
    """The price of all parts together, or None where one has none."""
    known = [(count, price) for count, price in parts if price is not None]
    if len(known) < len(parts):
        return None
    return HourlyPrice(
        usd=float(sum((count * price.usd for count, price in known), Decimal())),
        region=known[0][1].region,
        date=min(price.source.date for _, price in known),
        confidence=min((price.confidence for _, price in known), key=_CONFIDENCES.index),
        sources=tuple(dict.fromkeys(price.source.url for _, price in known)),
    )


def _cost_order(candidates: list[Machine], catalogue: Catalogue) -> Callable[[Machine], tuple[float, ...]]:
    """The price where every candidate has one; else the count of GPUs, the vCPUs and the memory.

    Ties go to the GPU that the catalogue lists first. Tests hold both orders to the prices that are known.
    """
    gpu_rank = {name: rank for rank, name in enumerate([None, *catalogue.accelerators])}
    all_priced = all(machine.price is not None for machine in candidates)

    def key(machine: Machine) -> tuple[float, ...]:
        usd = machine.price.usd if machine.price is not None and all_priced else 0.0
        rank = gpu_rank[machine.accelerator_type]
        return (usd, machine.accelerator_count, machine.vcpus, machine.memory_bytes, rank)

    return key


def _rule(chosen: Machine, question: _Question) -> str:
    request, platform, count = question.request, question.platform, chosen.accelerator_count
    family = next(m.family for m in platform.machine_types if m.name == chosen.machine_type)
    limit = format_size(question.limits[family])
    if not platform.families[family].gpus:
        memory = format_size(chosen.memory_bytes)
        return f"at most {limit} on disk, and fits {memory} of memory: {family.upper()}"
    rule = f"the cheapest {family.upper()} that holds it"
    if len(platform.families) > 1:
        rule = f"at most {limit} on disk: {rule}"
    if question.policy.kind == "named":
        return f"{rule}, with {count} x {chosen.accelerator_type} as asked"
    if count:
        return (
            f"{rule}, with a GPU because {request.measured_latency_ms:g} ms on a CPU miss the goal of "
            f"{request.latency_goal_ms:g} ms"
        )
    return rule


def _rejected(chosen: Machine, others: list[Machine], objections: dict[str, str | None]) -> Iterator[Rejected]:
    """Every machine type but the chosen one, once, with what speaks against it."""
    cheapest = {machine.machine_type: machine for machine in reversed(others)}
    wanted_gpu = f"{chosen.accelerator_count} x {chosen.accelerator_type}"
    for name, objection in objections.items():
        if name == chosen.machine_type:
            continue
        dearer = _dearer(cheapest[name], chosen) if name in cheapest else None
        yield Rejected(name, objection or dearer or f"cannot have {wanted_gpu}")


def _dearer(machine: Machine, chosen: Machine) -> str:
    if machine.price and chosen.price:
        return f"costs {machine.price.usd:.4g} USD an hour instead of {chosen.price.usd:.4g}"
    return f"is larger than needed ({machine.vcpus:g} vCPU, {format_size(machine.memory_bytes)})"


def _fallbacks(chosen: Machine, others: list[Machine]) -> tuple[Machine, ...]:
    """What to try when the chosen one is out of stock: other GPUs first, since it is GPUs that run out."""
    taken = {chosen.accelerator_type: 1}
    rank: dict[Machine, int] = {}  # among the machines with the same GPU
    for machine in others:
        rank[machine] = taken.get(machine.accelerator_type, 0)
        taken[machine.accelerator_type] = rank[machine] + 1
    return tuple(sorted(others, key=rank.__getitem__)[:MAX_FALLBACKS])


def _warnings(chosen: Machine, question: _Question) -> Iterator[str]:
    request, platform = question.request, question.platform
    if platform.ended is not None and platform.ended <= request.today:
        yield (
            f"PLATFORM_ENDED: {platform.title} was shut down on {platform.ended}: this is a plan only, "
            "nothing can be deployed there. Use vertex."
        )
    limit = max(family.max_model_bytes for name, family in platform.families.items() if name in question.limits)
    if request.model_bytes > limit:
        yield f"NEEDS_QUOTA: the model is over the limit of {format_size(limit)} and needs the granted quota."
    if chosen.accelerator_type is not None:
        gpu = question.catalogue.accelerators[chosen.accelerator_type]
        if warning := gpus.ending_warning(gpu, request.today):
            yield warning


def _names(families: dict[str, int]) -> str:
    return " and ".join(name.upper() for name in families)
