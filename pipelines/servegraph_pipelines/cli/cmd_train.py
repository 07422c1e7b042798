"""`servegraph train`: training alone, on several machines."""

from __future__ import annotations

from typing import Any

import click

from servegraph_pipelines.cli.engine_options import image_options, pairs
from servegraph_pipelines.cli.local_paths import FILE
from servegraph_pipelines.cli.outcome import echo, print_json
from servegraph_pipelines.images import ImageChoice


@click.command("train")
@click.option("--engine", "engine_name", type=click.Choice(["vertex", "kfp"]), required=True, help="Where it runs.")
@click.option("--name", required=True, help="Name of the job.")
@click.option("--output", required=True, help="Where artifacts go: gs://…, or a path below /mnt/output on kfp.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Machines, with the chief.")
@click.option("--machine-type", default="n1-standard-8", show_default=True, help="vertex: what each runs on.")
@click.option("--resource", "resources", multiple=True, metavar="accelerator=TYPE:N", help="kfp: also cpu, memory.")
@click.option("--volume-claim", help="kfp: the volume that all workers mount at /mnt/output.")
@click.option("--params-file", type=FILE, help="YAML file with parameters of the component train.")
@click.option("--param", "params", multiple=True, metavar="K=V", help="A parameter; goes over the file's.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="Label of the job.")
@click.option("--service-account", help="Account that the workers run as.")
@click.option("--network", help="vertex: projects/NUMBER/global/networks/NAME.")
@click.option("--project", help="Google Cloud project, for vertex.")
@click.option("--region", help="Region, for vertex.")
@click.option("--namespace", default="default", show_default=True, help="Kubernetes namespace, for kfp.")
@click.option("--context", help="Context of the kubeconfig, for kfp.")
@click.option("--api-url", help="Another address of the service: an emulator's or a private endpoint's.")
@image_options
@click.option("--plan", "plan_only", is_flag=True, help="Show the request and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(engine_name: Any, images: ImageChoice, plan_only: bool, as_json: bool, **given: Any) -> int:
    """Train on several machines: a CustomJob of Vertex AI, or a TFJob of Kubeflow's training operator."""
    from servegraph_pipelines import parameters, resources
    from servegraph_pipelines.engine_paths import require_training_seen
    from servegraph_pipelines.engines.runs import RunOptions
    from servegraph_pipelines.engines.training import send
    from servegraph_pipelines.training_job import STEP, TrainingJob, component, custom_job, machine_doubt, tf_job

    wanted = resources.parse([f"{STEP}.{text}" for text in given["resources"]])
    job = TrainingJob(
        name=given["name"],
        parameters=parameters.gather(component(), given["params_file"], given["params"]),
        output=given["output"],
        workers=given["workers"],
        machine_type=given["machine_type"],
        resources=wanted.get(STEP, resources.StepResources()),
        images=images,
        options=RunOptions(pairs(given["labels"], "label"), given["service_account"], given["network"]),
        volume_claim=given["volume_claim"],
    )
    require_training_seen(engine_name, job.parameters)
    body = custom_job(job) if engine_name == "vertex" else tf_job(job)
    if engine_name == "vertex" and (doubt := machine_doubt(job.machine_type)):
        echo(f"note: {doubt}", err=True)
    if plan_only:
        print_json({"plan": True, "engine": engine_name, "body": body})
        return 0
    places = ("project", "region", "namespace", "context", "api_url")
    resource = send(engine_name, body, {name: given[name] for name in places})
    if as_json:
        print_json({"engine": engine_name, "resource": resource})
    else:
        echo(resource)
    return 0
