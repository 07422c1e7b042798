"""`servegraph compile [OUT.yaml]`: the pipeline as YAML."""

from __future__ import annotations

from pathlib import Path

import click

from servegraph_pipelines.cli.engine_options import image_options
from servegraph_pipelines.images import ImageChoice


@click.command("compile")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option(
    "--pipeline", default="train-and-deploy", show_default=True, help="Its name, module:function, or a YAML file."
)
@image_options
def command(out: Path | None, pipeline: str, images: ImageChoice) -> None:
    """Write the pipeline as YAML that Kubeflow Pipelines and Vertex AI run."""
    from servegraph.errors import StorageError
    from servegraph_pipelines import flows

    specification = flows.load(pipeline)
    target = out or Path(specification.name.replace("-", "_") + ".yaml")
    is_file = pipeline.endswith((".yaml", ".yml", ".json"))
    as_it_is = images == ImageChoice() and not is_file  # with the header that the compiler writes
    text = flows.compiled(flows.function(pipeline)) if as_it_is else images.apply(specification).to_yaml()
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise StorageError(f"The pipeline cannot be written to {target}: {exc}.", code="CANNOT_WRITE") from exc
    click.echo(str(target))
