"""`servegraph run`: the whole DAG on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from servegraph_pipelines.cli.outcome import print_json


@click.command("run")
@click.option("--param", "params", multiple=True, metavar="K=V", help="A pipeline parameter; may be repeated.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("servegraph-output"),
    show_default=True,
    help="Where models, the deployed versions and the report go.",
)
@click.option(
    "--runner",
    type=click.Choice(["subprocess", "docker"]),
    default="subprocess",
    show_default=True,
    help="Run each step in a process here, or in its image.",
)
@click.option("--json", "as_json", is_flag=True, help="Print run.json on stdout.")
def command(params: tuple[str, ...], output_dir: Path, runner: Any, as_json: bool) -> int:
    """Train, export, optimize, inspect, choose and deploy on this machine: no account, no Docker.

    On the census sample unless told otherwise, e.g. --param data=my.csv --param label=price. Ends with a prediction
    of the deployed version and a report.
    """
    from servegraph.errors import InputError
    from servegraph_pipelines.cli.step_display import StepDisplay
    from servegraph_pipelines.run import parse_parameters, run
    from servegraph_pipelines.run_report import finish

    pairs = dict(param.partition("=")[::2] for param in params)
    if any("=" not in param for param in params):
        raise InputError("A --param has no value.", code="BAD_PARAMETER", fix="Write --param NAME=VALUE.")
    with StepDisplay() as display:
        state = run(output_dir, parse_parameters(pairs), runner, display.show)
    document = finish(state)
    if as_json:
        print_json(document)
    else:
        _show(document)
    if state.error is not None:
        click.echo(f"{click.style('error', fg='red', bold=True)} {state.error.code}: {state.error.message}", err=True)
        click.echo(f"  fix: {state.error.fix or 'see the log'}\n  log: {state.log}", err=True)
        return state.error.exit_code
    return 0


LONGEST_RECORD = 400  # characters; the report has all of it


def _show(document: dict[str, Any]) -> None:
    from servegraph.machines.sizes import format_size

    def line(name: str, text: str) -> None:
        click.echo(f"{click.style(f'{name:<10}', bold=True)} {text}")

    sizes, choice, deployed = document["model_bytes"], document["choice"], document["deployed"]
    if sizes:
        line("model", " → ".join(f"{name} {format_size(size)}" for name, size in sizes.items()))
    if document["metrics"]:
        line("metrics", ", ".join(f"{name} {value:.4f}" for name, value in document["metrics"].items()))
    if choice:
        price = choice.get("price_per_hour")
        accelerator = (
            f" + {choice['accelerator_count']} x {choice['accelerator_type']}" if choice["accelerator_type"] else ""
        )
        cost = f", {price:.4g} USD an hour" if price is not None else ""
        line("machine", f"{choice['machine_type']}{accelerator} on {choice['platform']}{cost}")
    if deployed:
        line("deployed", f"{deployed['name']} version {deployed['version']} ({deployed['outcome']})")
    if document["prediction"]:
        asked = document["prediction"]
        record = json.dumps(asked["instance"], ensure_ascii=False)
        line("record", record if len(record) <= LONGEST_RECORD else record[:LONGEST_RECORD] + " …")
        line(
            "prediction",
            f"{json.dumps(asked['prediction'], ensure_ascii=False)} (label in the data: {asked['label']})",
        )
    line("report", document["report"])
