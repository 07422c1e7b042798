"""`servegraph submit`: a run on Vertex AI Pipelines or Kubeflow Pipelines."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from servegraph_pipelines.cli.engine_options import engine_options, image_options, pairs
from servegraph_pipelines.cli.local_paths import FILE
from servegraph_pipelines.cli.outcome import echo, print_json, show_error
from servegraph_pipelines.images import ImageChoice


@click.command("submit")
@click.option(
    "--pipeline", default="train-and-deploy", show_default=True, help="Its name, module:function, or YAML file."
)
@engine_options
@click.option("--params-file", type=FILE, help="YAML file with the parameters, NAME: VALUE.")
@click.option("--param", "params", multiple=True, metavar="K=V", help="A parameter; goes over the file's.")
@click.option(
    "--resource", "resources", multiple=True, metavar="STEP.cpu=8", help="Also memory=32G, accelerator=TYPE:N."
)
@click.option("--label", "labels", multiple=True, metavar="K=V", help="Label of the run, for billing and search.")
@click.option(
    "--cache",
    type=click.Choice(["auto", "as-compiled", "off"]),
    default="auto",
    show_default=True,
    help="auto: where every image is bound to its digest. Deploying is never cached.",
)
@click.option("--name", help="Name of the run.  [default: the pipeline and the time]")
@click.option("--service-account", help="Account that the steps run as.")
@click.option("--network", help="vertex: projects/NUMBER/global/networks/NAME.")
@click.option("--encryption-key", help="vertex: projects/P/locations/L/keyRings/R/cryptoKeys/K.")
@click.option("--fail-fast", is_flag=True, help="vertex: start no further step once one has failed.")
@image_options
@click.option("--wait", is_flag=True, help="Wait for the end, with progress.")
@click.option("--timeout-s", type=float, help="How long to wait.")
@click.option("--poll-s", type=float, default=10.0, hidden=True)
@click.option("--plan", "plan_only", is_flag=True, help="Show the request and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(pipeline: str, engine_name: Any, place: Any, images: ImageChoice, **given: Any) -> int:
    """Send a run of a pipeline; everything is checked before anything is sent.

    With --wait it exits 0 when the run succeeded, 1 when it did not, with the failing step's own error.
    """
    from servegraph_pipelines import flows, parameters
    from servegraph_pipelines.engines import open_engine
    from servegraph_pipelines.naming import filled_in
    from servegraph_pipelines.submit import request_of

    options, chosen = _chosen(given, images)
    compiled = flows.load(pipeline)
    values = parameters.gather(compiled, given["params_file"], given["params"], engine=engine_name)
    values = filled_in(compiled, values, lambda line: echo(line, err=True))
    specification = chosen.apply(compiled, engine_name, values)
    request = request_of(specification, values, options, given["name"])
    with contextlib.closing(open_engine(engine_name, place)) as engine:
        body = engine.body(request)
        if given["plan_only"]:
            print_json({"plan": True, "engine": engine_name, "run": request.name, "body": body})
            return 0
        state = engine.submit(request)
        echo(f"{request.name}: sent.", err=True)
        echo(f"  {state.link}", err=True)
        if given["wait"]:
            return _wait(engine, request, state.id, given)
        _show(state, None, given["as_json"])
        return 0


def _chosen(given: dict[str, Any], images: ImageChoice) -> tuple[Any, Any]:
    from servegraph_pipelines import resources
    from servegraph_pipelines.engines.runs import RunOptions
    from servegraph_pipelines.submit import Choices

    options = RunOptions(
        labels=pairs(given["labels"], "label"),
        service_account=given["service_account"],
        network=given["network"],
        encryption_key=given["encryption_key"],
        fail_fast=given["fail_fast"],
    )
    return options, Choices(images, resources.parse(given["resources"]), given["cache"])


def _wait(engine: Any, request: Any, run_id: str, given: dict[str, Any]) -> int:
    from servegraph_pipelines.cli.step_display import StepDisplay
    from servegraph_pipelines.submit import failure, watch

    try:
        with StepDisplay() as display:
            patience = {"poll_s": given["poll_s"], "timeout_s": given["timeout_s"]}
            state = watch(engine, request, run_id, display.show, **patience)
    except KeyboardInterrupt:
        click.echo(f"Not waited for any longer; the run {run_id} goes on.", err=True)
        raise
    error = failure(engine, state)
    _show(state, error, given["as_json"])
    if error is None:
        return 0
    show_error(error.code, error.message, f"fix: {error.fix or 'see the run'}", f"run: {state.link}")
    return 1


def _show(state: Any, error: Any, as_json: bool) -> None:
    if as_json:
        print_json(state.to_json(error))
    else:
        echo(f"{state.id} {state.status} {state.link}")
