"""Replicas for a rate, and the price of predictions, from what was measured."""

from __future__ import annotations

import math

from servegraph.machines.decision import Capacity, ChoiceRequest, Decision

# A server near its capacity answers late; what was measured is its most, and traffic comes in bursts.
UTILIZATION = 0.8
_SECONDS_PER_HOUR = 3600


def capacity_of(request: ChoiceRequest, decision: Decision) -> Capacity | None:
    """Return what the chosen machine serves, None where no rate was measured or it has a GPU.

    The rate is that of the measured CPUs: more of them serve more, and how much more was not measured; what a GPU
    serves says nothing of it.
    """
    rate, target = request.measured_rate, request.target_rate
    if rate is None or decision.machine.accelerator_type is not None:
        return None
    usable = rate * UTILIZATION
    replicas = max(1, math.ceil(target / usable)) if target else None
    hourly = decision.machine.price.usd if decision.machine.price else None
    return Capacity(
        requests_per_second=rate,
        measured_cpus=request.measured_cpus,
        utilization=UTILIZATION,
        target_rate=target,
        replicas=replicas,
        price_per_million=None if hourly is None else hourly / (usable * _SECONDS_PER_HOUR) * 1e6,
        price_per_hour=None if hourly is None else hourly * (replicas or 1),
    )


def capacity_warnings(request: ChoiceRequest, decision: Decision) -> list[str]:
    """Return what to know about the rate: the machine has a GPU or fewer CPUs than were measured, or no rate was."""
    if request.target_rate and request.measured_rate is None:
        return ["RATE_NOT_MEASURED: no rate was measured: how many replicas serve the target is not known."]
    if request.measured_rate is not None and (gpu := decision.machine.accelerator_type):
        return [f"MEASURED_ON_CPU: the rate was measured without a GPU: what is served with {gpu} is not known."]
    vcpus = decision.machine.vcpus - decision.reserved_vcpus
    if request.measured_rate is None or request.measured_cpus is None or request.measured_cpus <= vcpus:
        return []
    return [
        f"MEASURED_ON_MORE_CPUS: the rate was measured on {request.measured_cpus} CPUs; the machine leaves the server "
        f"{vcpus:g}."
    ]
