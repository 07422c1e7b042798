"""`servegraph deploy MODEL --target T --name NAME`."""

from __future__ import annotations

from pathlib import Path

import click

from servegraph.deploy_version.deploy import plan_deploy
from servegraph.deploy_version.interrupt import terminated_as_interrupted
from servegraph.deploy_version.plan import DEFAULT_KEEP_VERSIONS, DeployRequest, Plan, Tolerance
from servegraph.deploy_version.targets import Place, open_target
from servegraph.serve.state import ServingConfig
from servegraph_pipelines.cli.outcome import print_json
from servegraph_pipelines.cli.target_options import show_outcome, show_warnings, target_options


@click.command("deploy")
@click.argument("model")
@target_options
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--machine-type", help="Machine that the version is meant for.")
@click.option("--accelerator-type", help="Accelerator of that machine.")
@click.option("--accelerator-count", type=int, default=0, help="How many of them.")
@click.option("--label", "labels", multiple=True, help="Label that shall point to the version; may be repeated.")
@click.option(
    "--keep",
    type=int,
    default=DEFAULT_KEEP_VERSIONS,
    show_default=True,
    help="How many versions stay, the live one included; the previous one goes last.",
)
@click.option("--allow-signature-change", is_flag=True, help="Deploy even if clients of the live version break.")
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
    labels: tuple[str, ...],
    keep: int,
    allow_signature_change: bool,
    tolerance: tuple[float, float],
) -> int:
    """Deploy MODEL, a SavedModel directory (path or gs://), as the version of NAME that has the traffic.

    The version takes traffic once a server has loaded it and answered the golden requests stored in the model
    as recorded. Running it again changes nothing; after a crash, running it again completes what was begun.
    """
    request = DeployRequest(
        model_uri=model,
        name=name,
        config=ServingConfig(machine_type, accelerator_type, accelerator_count),
        labels=labels,
        keep_versions=keep,
        allow_signature_change=allow_signature_change,
        tolerance=Tolerance(*tolerance),
    )
    opened = open_target(target, place)
    plan = plan_deploy(request, opened)
    if only_plan:
        return _show_plan(plan, as_json)
    with terminated_as_interrupted():
        outcome = opened.apply(plan, lambda done: click.echo(f"  {done}", err=True))
    show_warnings(outcome.warnings)
    if as_json:
        print_json(outcome.to_json())
    else:
        show_outcome(outcome)
        if target == "local" and place.root is not None:
            click.echo(f"  serve it: servegraph serve {Path(place.root)}")
    return 0


def _show_plan(plan: Plan, as_json: bool) -> int:
    refusal = plan.refusal()
    if as_json:
        print_json(plan.to_json())
    else:
        _print_plan(plan)
        if refusal is not None:
            click.echo(f"refused: {refusal}")
    show_warnings(plan.warnings)
    return 0 if refusal is None else refusal.exit_code


def _print_plan(plan: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{plan.request.name} on {plan.target}: {plan.outcome}", title_justify="left")
    table.add_column("step")
    table.add_column("what", overflow="fold")
    for step in plan.steps:
        table.add_row(step.action, step.detail)
    before = ", ".join(f"version {version}: {share} %" for version, share in plan.traffic_before.items())
    after = ", ".join(f"version {version}: {share} %" for version, share in plan.traffic_after.items())
    table.add_row("traffic", f"{before or 'none'} -> {after or 'none'}")
    Console().print(table)
