"""`servegraph choose MODEL`: the machine for a model from its measured size, and why."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servegraph_pipelines.cli.local_paths import LocalPath
from servegraph_pipelines.cli.outcome import echo, print_json

if TYPE_CHECKING:
    from servegraph.machines.decision import Decision, PlatformName


@click.command("choose")
@click.argument("model")
@click.option(
    "--platform",
    metavar="NAME",
    default="vertex",
    show_default=True,
    help="Whose machines: vertex, ai-platform, kserve or local.",
)
@click.option(
    "--accelerator",
    metavar="auto|none|TYPE[:COUNT]",
    default="auto",
    show_default=True,
    help="auto takes a GPU only when the measured latency misses the goal.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="Measured memory that the model needs, like 1.5GB; else 1.2 times its size once it is loaded.",
)
@click.option("--latency-goal-ms", type=float, metavar="MS", help="Goal for one request.")
@click.option("--measured-latency-ms", type=float, metavar="MS", help="Measured for one request on a CPU.")
@click.option("--measured", type=LocalPath(), metavar="FILE", help="What `servegraph measure --json` printed.")
@click.option("--target-rate", type=float, metavar="N", help="Requests a second to be served, for the replicas.")
@click.option("--granted-quota", metavar="SIZE", help="Model size that the platform granted, like 20GB.")
@click.option("--custom-prediction-routine", is_flag=True, help="The model comes with Python code of its own.")
@click.option("--json", "as_json", is_flag=True, help="Print the decision record as JSON.")
def command(
    model: str,
    platform: PlatformName,
    accelerator: str,
    memory: str | None,
    latency_goal_ms: float | None,
    measured_latency_ms: float | None,
    measured: Path | None,
    target_rate: float | None,
    granted_quota: str | None,
    custom_prediction_routine: bool,
    as_json: bool,
) -> int:
    """Pick the machine for the SavedModel MODEL (a path or gs://…) from its measured size.

    Exit code 1 if no machine of the platform can hold it.
    """
    from servegraph.inspect_graph.inspect import inspect
    from servegraph.machines import this_machine
    from servegraph.machines.choose import choose
    from servegraph.machines.decision import ChoiceRequest
    from servegraph.machines.sizes import parse_size

    facts = _measured(measured)
    facts |= {"memory_bytes": parse_size(memory)} if memory else {}
    facts |= {"measured_latency_ms": measured_latency_ms} if measured_latency_ms is not None else {}
    inspection = inspect(model)
    decision = choose(
        ChoiceRequest(
            model_bytes=inspection.size_bytes,
            growth_bytes=inspection.loading_growth_bytes,
            today=datetime.now(timezone.utc).date(),
            platform=platform,
            accelerator=accelerator,
            latency_goal_ms=latency_goal_ms,
            target_rate=target_rate,
            tag_sets=tuple(tuple(tags) for tags in inspection.tag_sets),
            custom_prediction_routine=custom_prediction_routine,
            granted_model_bytes=parse_size(granted_quota) if granted_quota else None,
            this_machine=this_machine.read() if platform == "local" else None,
            **facts,
        )
    )
    if as_json:
        print_json(decision.to_json())
    else:
        _show(decision)
    return 0


def _measured(file: Path | None) -> dict[str, Any]:
    from servegraph.errors import InputError
    from servegraph.measure.result import choice_facts
    from servegraph.storage.local import answering

    if file is None:
        return {}
    try:
        with answering("read", file):
            text = file.read_text(encoding="utf-8")
        return choice_facts(json.loads(text), str(file))
    except ValueError as exc:
        if isinstance(exc, InputError):
            raise
        raise InputError(
            f"{str(file)!r} cannot be read as a measurement: {exc}.",
            code="BAD_MEASUREMENT",
            fix="Write one with `servegraph measure MODEL --json > FILE`.",
        ) from exc


def _show(decision: Decision) -> None:
    from servegraph.machines.sizes import format_size
    from servegraph_pipelines.cli.tables import print_table

    machine = decision.machine
    size = f"{machine.vcpus:g} vCPU, {format_size(machine.memory_bytes)}"
    echo(f"({size}) on {decision.platform}", head=str(machine), colour="green")
    print_table(("name", "fact"), _facts(decision).items(), header=False)
    for warning in decision.warnings:
        echo(warning, head="warning", colour="yellow")
    rejected = [(row.name, row.reason) for row in (*decision.rejected, *decision.rejected_accelerators)]
    if rejected:
        print_table(("rejected", "reason"), rejected)


def _facts(decision: Decision) -> dict[str, str]:
    from servegraph.machines.sizes import format_size

    machine, price, resources = decision.machine, decision.machine.price, decision.resources
    memory = f"{format_size(decision.memory.size_bytes)} of memory ({decision.memory.rule})"
    facts = {"why": decision.rule, "model": f"{format_size(decision.model_bytes)} on disk, {memory}"}
    if decision.reserved_vcpus:
        reserved = f"about {decision.reserved_vcpus} of {machine.vcpus:g}"
        facts["vCPUs"] = f"{reserved} runs the platform's own processes"
    if price:
        sureness = f"{price.date}, {price.confidence} confidence"
        facts["price"] = f"{price.usd:.4g} USD an hour in {price.region} ({sureness})"
    if capacity := decision.capacity:
        facts["serves"] = f"{capacity.requests_per_second:.0f} requests a second, measured"
        if capacity.replicas is not None:
            facts["replicas"] = f"{capacity.replicas} for {capacity.target_rate:g} requests a second"
        if capacity.price_per_million is not None:
            facts["a million"] = (
                f"{capacity.price_per_million:.3g} USD at {capacity.utilization:.0%} of the measured rate"
            )
    if resources:
        facts["requests"] = ", ".join(f"{name}: {value}" for name, value in resources.requests.items())
        facts["limits"] = ", ".join(f"{name}: {value}" for name, value in resources.limits.items())
    facts["tags"] = ", ".join(decision.tags) or "none"
    if decision.fallbacks:
        facts["fallbacks"] = ", then ".join(map(str, decision.fallbacks))
    return facts
