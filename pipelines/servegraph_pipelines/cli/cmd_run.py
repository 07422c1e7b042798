"""`servegraph run`: the whole DAG on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from servegraph_pipelines.cli.local_paths import FILE, LocalPath
from servegraph_pipelines.cli.outcome import echo, print_json, show_error


@click.command("run")
@click.option(
    "--pipeline", default="train-and-deploy", show_default=True, help="Or retrain, module:function, a YAML file."
)
@click.option("--param", "params", multiple=True, metavar="K=V", help="A pipeline parameter; may be repeated.")
@click.option("--params-file", type=FILE, help="YAML file with parameters.")
@click.option(
    "--output-dir",
    type=LocalPath(file_okay=False),
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
@click.option("--docker-network", metavar="NAME", help="Network of the steps' containers, or none.")
@click.option(
    "--cache", is_flag=True, help="Take train, export, optimize and inspect from earlier runs that did the same."
)
@click.option("--json", "as_json", is_flag=True, help="Print run.json on stdout.")
def command(
    pipeline: str,
    params: tuple[str, ...],
    params_file: Path | None,
    output_dir: Path,
    runner: Any,
    docker_network: str | None,
    cache: bool,
    as_json: bool,
) -> int:
    """Train, export, optimize, inspect, choose and deploy on this machine: no account, no Docker.

    On the census sample unless told otherwise, e.g. --param data=my.csv --param label=price; the model is then called
    after the data (without a date), unless there is a model_name. Ends with a prediction of the deployed version and a
    report.
    """
    from servegraph.extras import require
    from servegraph_pipelines import flows, foresight
    from servegraph_pipelines.cli.step_display import StepDisplay
    from servegraph_pipelines.naming import filled_in
    from servegraph_pipelines.parameters import gather
    from servegraph_pipelines.run import PLACES, LocalRequest, run
    from servegraph_pipelines.run_report import finish

    if docker_network is not None and runner != "docker":
        raise click.UsageError("--docker-network is for the steps' containers: give --runner docker as well.")
    of_ours = pipeline in flows.FLOWS and runner == "subprocess"  # in images, and in flows of others, all may be there
    require(("kfp", "tensorflow") if of_ours else ("kfp",), "Running a pipeline on this machine", "train")
    specification = flows.load(pipeline)
    values = gather(specification, params_file, params, PLACES)
    foresight.check_files(specification, values)
    values = filled_in(specification, values, lambda line: echo(line, err=True))
    request = LocalRequest(pipeline, specification, values, runner, docker_network, cache)
    with StepDisplay() as display:
        state = run(output_dir, request, display.show)
    document = finish(state)
    if as_json:
        print_json(document)
    else:
        _show(document)
    if state.interrupted:
        click.echo("Interrupted.", err=True)
        return 130
    if state.error is not None:
        error = state.error
        show_error(error.code, error.message, f"fix: {error.fix or 'see the log'}", f"log: {state.log}")
        return state.error.exit_code
    return 0


LONGEST_RECORD = 400  # characters; the report has all of it


def _show(document: dict[str, Any]) -> None:
    from servegraph.machines.sizes import format_size
    from servegraph.metric_words import metric_name, metric_value

    def line(name: str, text: str) -> None:
        echo(text, head=f"{name:<10}")

    sizes, choice, deployed = document["model_bytes"], document["choice"], document["deployed"]
    if sizes:
        line("model", " → ".join(f"{name} {format_size(size)}" for name, size in sizes.items()))
    for whose, metrics in (("trained", document["metrics"]), ("optimized", document["optimized_metrics"])):
        if metrics:
            told = (f"{metric_name(name)} {metric_value(value)}" for name, value in metrics.items())
            line("metrics", f"{whose}: {', '.join(told)}")
    for note in document["notes"]:
        line("note", note)
    if choice:
        price = choice.get("price_per_hour")
        accelerator = (
            f" + {choice['accelerator_count']} x {choice['accelerator_type']}" if choice["accelerator_type"] else ""
        )
        cost = f", {price:.4g} USD an hour" if price is not None else ""
        line("machine", f"{choice['machine_type']}{accelerator} on {choice['platform']}{cost}")
    if verdict := document["evaluation"].get("verdict"):
        end = verdict if deployed or verdict != "refused" else f"{verdict}, so nothing was deployed"
        line("evaluated", ": ".join([end, *document["evaluation"]["reasons"][:1]]))
    if document["skipped"]:
        line("skipped", document["skipped"])
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
    line("report", document["report"] or "could not be written")
