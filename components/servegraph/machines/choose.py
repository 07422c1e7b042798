"""The choice of a machine for a model: `choose(request)` is pure; its rules are one function a platform."""

from __future__ import annotations

import math
from dataclasses import replace

from servegraph.errors import InputError, NoMachineFits
from servegraph.machines import gpus, n1
from servegraph.machines.capacity import capacity_of, capacity_warnings
from servegraph.machines.catalog import Catalogue, load
from servegraph.machines.decision import (
    PLATFORMS,
    ChoiceRequest,
    Decision,
    Machine,
    Memory,
    Resources,
)
from servegraph.machines.sizes import format_size

# What Kubernetes calls any GPU; which types a cluster has is not ours to know.
KUBERNETES_GPU = "nvidia.com/gpu"
SERVE, GPU, TPU = "serve", "gpu", "tpu"


def choose(request: ChoiceRequest, catalogue: Catalogue | None = None) -> Decision:
    """Return the machine for a model, with every rejected one and its reason; nothing is read but `request`.

    - `ai-platform`: MLS1 up to its limits, then the cheapest N1 that holds the model.
    - `vertex`: the cheapest N1 that holds it.
    - `kserve`: the requests and limits of a container.
    - `local`: this machine.

    A GPU is taken where the request names one, or where it says `auto` and the measured latency on a CPU
    misses the goal.

    Raises:
        InputError: a number is not above 0, or a name is not known (codes `BAD_NUMBER`, `UNKNOWN_PLATFORM`,
            `UNKNOWN_ACCELERATOR`, `BAD_ACCELERATOR_COUNT`, `NO_THIS_MACHINE`).
        NoMachineFits: no machine of the platform can hold the model, or none can have the GPU (codes
            `NO_MACHINE_FITS`, `ACCELERATOR_…`).
    """
    catalogue = catalogue or load()
    policy = check(request, catalogue)
    memory = needed_memory(request)
    if request.platform == "kserve":
        decision = _in_a_container(request, memory, policy, catalogue)
    elif request.platform == "local":
        decision = _on_this_machine(request, memory, policy)
    else:
        decision = n1.choose_machine(request, memory, policy, catalogue)
    on_gpu = decision.machine.accelerator_type is not None
    tags = tags_for(request.tag_sets, on_gpu=on_gpu)
    more = [*_latency_warnings(request, on_gpu), *_tag_warnings(request.tag_sets, tags, on_gpu)]
    more += [*_model_warnings(request), *capacity_warnings(request, decision)]
    capacity = capacity_of(request, decision)
    return replace(decision, tags=tags, warnings=(*decision.warnings, *more), capacity=capacity)


def needed_memory(request: ChoiceRequest) -> Memory:
    """Return the measured memory of the model, or TensorFlow Serving's own estimate of it."""
    if request.memory_bytes is not None:
        return Memory(request.memory_bytes, "measured")
    # 1.2 x the files and no bytes on top: kResourceEstimateRAMMultiplier and kResourceEstimateRAMPadBytes in
    # tensorflow_serving/servables/tensorflow/bundle_factory_util.cc of github.com/tensorflow/serving.
    estimate = -(-(request.model_bytes + request.growth_bytes) * 12 // 10)
    grown = " and of what is turned back or copied when it is loaded" if request.growth_bytes else ""
    return Memory(estimate, f"TensorFlow Serving's estimate: 1.2 x the bytes on disk{grown}")


def tags_for(tag_sets: tuple[tuple[str, ...], ...], *, on_gpu: bool) -> tuple[str, ...]:
    """Return the tag-set to load: one tagged for the GPU only on a GPU, and there rather than the plain one.

    Empty where the model has tag-sets and none for the machine. Without known tag-sets it is the plain one.
    """
    wanted = [{SERVE, GPU}, {SERVE}] if on_gpu else [{SERVE}]
    for tags in wanted:
        if not tag_sets or tags in map(set, tag_sets):
            return tuple(sorted(tags, reverse=True)) if tag_sets else (SERVE,)
    fitting = [tags for tags in tag_sets if SERVE in tags and TPU not in tags and (on_gpu or GPU not in tags)]
    return fitting[0] if fitting else ()


def _fix_of(name: str) -> str:
    if name in ("latency_goal_ms", "target_rate", "granted_model_bytes"):
        return "Give a number above 0, or leave it out."
    return "Give the size of the model's files." if name == "model_bytes" else f"Measure {name}, or leave it out."


def check(request: ChoiceRequest, catalogue: Catalogue) -> gpus.Policy:
    """Return the policy of the request if all in it can be used. Raises the `InputError` of `choose`."""
    if request.platform not in PLATFORMS:
        raise InputError(
            f"{request.platform!r} is not a platform.",
            code="UNKNOWN_PLATFORM",
            fix=f"Give one of {', '.join(PLATFORMS)}.",
        )
    numbers = {
        "model_bytes": request.model_bytes,
        "memory_bytes": request.memory_bytes,
        "granted_model_bytes": request.granted_model_bytes,
        "latency_goal_ms": request.latency_goal_ms,
        "measured_latency_ms": request.measured_latency_ms,
        "measured_rate": request.measured_rate,
        "measured_cpus": request.measured_cpus,
        "measured_model_bytes": request.measured_model_bytes,
        "target_rate": request.target_rate,
    }
    for name, number in numbers.items():
        if number is not None and not (math.isfinite(number) and number > 0):
            raise InputError(f"{name} is {number}; it must be above 0.", code="BAD_NUMBER", fix=_fix_of(name))
    return gpus.parse_policy(request.accelerator, catalogue)


def _in_a_container(request: ChoiceRequest, memory: Memory, policy: gpus.Policy, catalogue: Catalogue) -> Decision:
    """On KServe the cluster picks the node: what is chosen are the container's requests and limits."""
    limits = catalogue.platforms["kserve"].limits
    vcpus = limits["container_vcpus"].value
    memory_bytes = max(memory.size_bytes, limits["container_memory_bytes"].value)
    gpu, warnings = policy.accelerator, []
    if gpu is not None:
        if found := gpus.objection(gpu, memory.size_bytes, request.today):
            raise NoMachineFits(f"{gpu.name} {found.reason}.", code=found.code, fix=found.fix)
        if ending := gpus.ending_warning(gpu, request.today):
            warnings.append(ending)
    needs_gpu = gpu is not None or (policy.kind == "auto" and request.misses_latency_goal)
    count = (policy.count or 1) if needs_gpu else 0
    if needs_gpu and gpu is None:
        warnings.append(f"ANY_GPU: the cluster picks the GPU, which needs {format_size(memory.size_bytes)} of memory.")
    # Requests and limits are equal, so that the node keeps for the container what was measured.
    asked = {"cpu": str(vcpus), "memory": _mebibytes(memory_bytes)}
    return Decision(
        platform="kserve",
        machine=Machine(
            machine_type="container",
            vcpus=vcpus,
            memory_bytes=memory_bytes,
            accelerator_type=(gpu.name if gpu else KUBERNETES_GPU) if needs_gpu else None,
            accelerator_count=count,
        ),
        model_bytes=request.model_bytes,
        memory=memory,
        rule="a container with the memory it needs, and no less than KServe's TensorFlow runtime asks for",
        resources=Resources(asked, asked | ({KUBERNETES_GPU: str(count)} if count else {})),
        warnings=tuple(warnings),
    )


def _on_this_machine(request: ChoiceRequest, memory: Memory, policy: gpus.Policy) -> Decision:
    """On `local` there is one machine: the model fits its memory or not."""
    machine = request.this_machine
    if machine is None:
        raise InputError(
            "The platform 'local' was asked for without this machine's CPUs and memory.",
            code="NO_THIS_MACHINE",
            fix="Pass this_machine=servegraph.machines.this_machine.read().",
        )
    if policy.accelerator is not None:
        raise NoMachineFits(
            f"{policy.accelerator.name} was asked for, and the local server serves on the CPU.",
            code="ACCELERATOR_NOT_OFFERED",
            fix="Give --accelerator none, or another platform.",
        )
    if memory.size_bytes > machine.memory_bytes:
        raise NoMachineFits(
            f"The model needs {format_size(memory.size_bytes)} of memory ({memory.rule}), and this machine "
            f"has {format_size(machine.memory_bytes)}.",
            fix="Shrink the model with `servegraph optimize`, or choose another platform.",
        )
    return Decision(
        platform="local",
        machine=Machine("local", machine.vcpus, machine.memory_bytes),
        model_bytes=request.model_bytes,
        memory=memory,
        rule="this machine, whose memory holds the model",
    )


def _latency_warnings(request: ChoiceRequest, on_gpu: bool) -> list[str]:
    goal, measured = request.latency_goal_ms, request.measured_latency_ms
    if goal is not None and measured is None and request.accelerator == "auto":
        return [f"LATENCY_NOT_MEASURED: no latency was measured to compare with the goal of {goal:g} ms: no GPU."]
    if request.misses_latency_goal and not on_gpu:
        return [f"LATENCY_GOAL_MISSED: {measured:g} ms on a CPU miss the goal of {goal:g} ms: no GPU."]
    return []


def _model_warnings(request: ChoiceRequest) -> list[str]:
    measured = request.measured_model_bytes
    if measured in (None, request.model_bytes):
        return []
    sizes = f"it had {measured} bytes, this one has {request.model_bytes}"
    return [f"OTHER_MODEL_MEASURED: another model was measured than this one: {sizes}."]


def _tag_warnings(tag_sets: tuple[tuple[str, ...], ...], tags: tuple[str, ...], on_gpu: bool) -> list[str]:
    if tags or not tag_sets:
        return []
    shown = ", ".join("{" + ", ".join(tags) + "}" for tags in tag_sets)
    kind = "GPU" if on_gpu else "CPU"
    return [f"NO_TAG_SET: of the model's tag-sets {shown} none can be served on a {kind}."]


def _mebibytes(size_bytes: int) -> str:
    """Kubernetes' spelling of a size, rounded up to whole Mi, or Gi where that is exact."""
    mebibytes = -(-size_bytes // 2**20)
    return f"{mebibytes // 1024}Gi" if mebibytes % 1024 == 0 else f"{mebibytes}Mi"
