"""`servegraph compile [OUT.yaml]`: the pipeline as YAML."""

from __future__ import annotations

from pathlib import Path

import click

from servegraph_pipelines.cli.engine_options import image_options
from servegraph_pipelines.cli.local_paths import NEW_FILE
from servegraph_pipelines.images import ImageChoice


@click.command("compile")
@click.argument("out", type=NEW_FILE, required=False)
@click.option(
    "--pipeline", default="train-and-deploy", show_default=True, help="Its name, module:function, or a YAML file."
)
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="STEP.cpu=8",
    help="Also memory=32G, accelerator=TYPE:N: makes it a parameter, like train_cpu, with this as its default.",
)
@click.option("--estimator", is_flag=True, help="Train and export in the image that has TensorFlow 2.15.")
@image_options
def command(out: Path | None, pipeline: str, resources: tuple[str, ...], estimator: bool, images: ImageChoice) -> None:
    """Write the pipeline as YAML that Kubeflow Pipelines and Vertex AI run."""
    from servegraph.storage.local import write_file
    from servegraph_pipelines import flows
    from servegraph_pipelines.images import for_estimators
    from servegraph_pipelines.resource_parameters import with_parameters
    from servegraph_pipelines.resources import parse

    loaded = flows.load(pipeline)
    specification = images.apply(for_estimators(loaded) if estimator else loaded)
    specification = with_parameters(specification, parse(resources))
    target = out or Path(specification.name.replace("-", "_") + ".yaml")
    is_file = pipeline.endswith((".yaml", ".yml", ".json"))
    as_it_is = specification == loaded and not is_file  # with the header that the compiler writes
    text = flows.compiled(flows.function(pipeline)) if as_it_is else specification.to_yaml()
    write_file(target, text.encode())
    click.echo(str(target))
