"""`servegraph compile [OUT.yaml]`: the pipeline as YAML."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compile")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path), default=Path("train_and_deploy.yaml"))
def command(out: Path) -> None:
    """Write the pipeline as YAML that Kubeflow Pipelines and Vertex AI run."""
    from servegraph.errors import StorageError
    from servegraph_pipelines.compiling import pipeline_yaml

    try:
        out.write_text(pipeline_yaml(), encoding="utf-8")
    except OSError as exc:
        raise StorageError(f"The pipeline cannot be written to {out}: {exc}.", code="CANNOT_WRITE") from exc
    click.echo(str(out))
