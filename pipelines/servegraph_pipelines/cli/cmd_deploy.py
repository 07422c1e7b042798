"""`servegraph deploy MODEL --target T --name NAME`."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import click

from servegraph.deploy_version.choice import Choice, read_choice
from servegraph.deploy_version.deploy import plan_deploy
from servegraph.deploy_version.plan import DEFAULT_KEEP_VERSIONS, DeployRequest, Plan, ServiceOptions, Tolerance
from servegraph.deploy_version.targets import Place, open_target
from servegraph.errors import InputError
from servegraph.interrupt import terminated_as_interrupted
from servegraph.serve.state import ServingConfig
from servegraph.storage.local_paths import require_local
from servegraph_pipelines.cli.local_paths import FILE
from servegraph_pipelines.cli.outcome import echo, print_json
from servegraph_pipelines.cli.service_options import service_options
from servegraph_pipelines.cli.target_options import show_outcome, show_unused, show_warnings, target_options


@click.command("deploy")
@click.argument("model")
@target_options
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--machine-type", help="Machine that the version is meant for.")
@click.option("--accelerator-type", help="Accelerator of that machine.")
@click.option("--accelerator-count", type=int, default=0, help="How many of them.")
@click.option(
    "--choice",
    type=FILE,
    help="Output of `servegraph choose --json`: the machine, and those to fall back on where it is not to be had.",
)
@click.option("--traffic", type=int, default=100, show_default=True, help="Percent of the traffic at the end; 0 is 0.")
@click.option("--traffic-steps", metavar="P,P,…", default="", help="Percents to go through, like 10,50,100.")
@service_options
@click.option("--label", "labels", multiple=True, help="Label that shall point to the version; may be repeated.")
@click.option(
    "--keep",
    type=int,
    default=DEFAULT_KEEP_VERSIONS,
    show_default=True,
    help="How many versions stay, the live one included; the previous one goes last.",
)
@click.option("--allow-signature-change", is_flag=True, help="Deploy even if clients of the live version break.")
@click.option("--trust-code", is_flag=True, help="Run the custom prediction routine that MODEL brings.")
@click.option(
    "--tolerance",
    type=(float, float),
    default=(Tolerance.abs, Tolerance.rel),
    show_default=True,
    metavar="ABS REL",
    help="How far numbers may be from the recorded answers of the golden requests.",
)
def command(
    model: str,
    target: str,
    place: Place,
    name: str,
    as_json: bool,
    only_plan: bool,
    machine_type: str | None,
    accelerator_type: str | None,
    accelerator_count: int,
    choice: Path | None,
    traffic: int,
    traffic_steps: str,
    service: ServiceOptions,
    labels: tuple[str, ...],
    keep: int,
    allow_signature_change: bool,
    trust_code: bool,
    tolerance: tuple[float, float],
) -> int:
    """Deploy MODEL, a SavedModel directory (path or gs://), as the version of NAME that has the traffic.

    The version takes traffic once a server has loaded it and answered the golden requests stored in the model
    as recorded. Running it again changes nothing; after a crash, running it again completes what was begun.
    """
    chosen = Choice(ServingConfig(machine_type, accelerator_type, accelerator_count))
    if choice is not None:
        if machine_type or accelerator_type or accelerator_count:
            raise click.UsageError("Give either --choice or the machine.")
        chosen = _read_choice(choice, target)
        service = replace(service, resources=chosen.resources)
    request = DeployRequest(
        model_uri=model,
        name=name,
        config=chosen.config,
        fallbacks=chosen.fallbacks,
        service=service,
        labels=labels,
        traffic_percent=traffic,
        traffic_steps=_steps(traffic_steps),
        keep_versions=keep,
        allow_signature_change=allow_signature_change,
        tolerance=Tolerance(*tolerance),
        trust_code=trust_code,
    )
    if target == "local":
        _show_unused(request)
    opened = open_target(target, place)
    plan = plan_deploy(request, opened)
    if only_plan:
        return _show_plan(plan, as_json)
    with terminated_as_interrupted():
        outcome = opened.apply(plan, lambda done: echo(f"  {done}", err=True))
    show_warnings(outcome.warnings)
    if as_json:
        print_json(outcome.to_json())
    else:
        show_outcome(outcome)
        if target == "local" and place.root is not None:
            trust = "" if plan.model.routine is None else " --trust-code"
            echo(f"  serve it: servegraph serve {require_local(place.root)}{trust}")
    return 0


def _show_unused(request: DeployRequest) -> None:
    nothing, service = ServiceOptions(), request.service
    show_unused(
        [
            "service_label" if field.name == "labels" else field.name
            for field in fields(service)
            if field.name != "resources" and getattr(service, field.name) != getattr(nothing, field.name)
        ]
    )
    if request.config != ServingConfig():
        note = "The machine is only recorded with the version: the local target serves on this one."
        echo(note, head="note", colour="yellow", err=True)


def _show_plan(plan: Plan, as_json: bool) -> int:
    refusal = plan.refusal()
    if as_json:
        print_json(plan.to_json())
    else:
        _print_plan(plan)
        if refusal is not None:
            echo(f"refused: {refusal}")
    show_warnings(plan.warnings)
    return 0 if refusal is None else refusal.exit_code


def _print_plan(plan: Plan) -> None:
    from servegraph.machines.sizes import format_size
    from servegraph_pipelines.cli.tables import print_table

    rows = [(step.action, step.detail) for step in plan.steps]
    if plan.model.tags:
        left = ", ".join(f"{{{', '.join(tags)}}}" for tags in plan.model.left_out)
        rows.append(("graph", f"{{{', '.join(plan.model.tags)}}} as {{serve}}{left and f'; left out: {left}'}"))
    before = ", ".join(f"version {version}: {share} %" for version, share in plan.traffic_before.items())
    after = ", ".join(f"version {version}: {share} %" for version, share in plan.traffic_after.items())
    rows.append(("traffic", f"{before or 'none'} -> {after or 'none'}"))
    if plan.upload_bytes is not None:
        rows.append(("upload", format_size(plan.upload_bytes)))
        price = "not known" if plan.price_per_hour is None else f"{plan.price_per_hour:g} USD an hour, on demand"
        rows.append(("price", f"{plan.machine_type or 'no machine is named'}: {price}"))
    rows += (("there", line) for line in plan.exists)
    echo(f"{plan.request.name} on {plan.target}: {plan.outcome}")
    print_table(("step", "what"), rows)
    for step in plan.steps:
        if step.body is not None:
            echo(f"{step.action}: {step.method} {' '.join(step.params.values())}")
            print_json(step.body)


def _read_choice(path: Path, target: str) -> Choice:
    import json

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise InputError(
            f"{path} is not JSON: {exc}.",
            code="BAD_CHOICE",
            fix="Make it with `servegraph choose MODEL --json > FILE`.",
        ) from exc
    return read_choice(document, target, str(path))


def _steps(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(step) for step in text.split(",")) if text else ()
    except ValueError as exc:
        raise InputError(
            f"{text!r} are no traffic steps.", code="BAD_TRAFFIC_STEPS", fix="Write them like 10,50,100."
        ) from exc
