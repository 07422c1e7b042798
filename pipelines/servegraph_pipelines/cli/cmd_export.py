"""`servegraph export SOURCE OUT`: a serving SavedModel from a Keras model or training checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from servegraph.quiet_tensorflow import import_tensorflow_quietly
from servegraph_pipelines.cli.outcome import print_json


@click.command("export")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--schema", type=click.Path(path_type=Path), help="Schema of the data; names the classes.")
@click.option("--samples", help="Records as JSON lines to compare answers on; made up if not given.")
@click.option("--trainer", help="Module or .py file whose import registers the model's own layers.")
@click.option("--trust-code", is_flag=True, help="Let Python code inside the Keras file (Lambda layers) run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    source: Path,
    out: Path,
    schema: Path | None,
    samples: str | None,
    trainer: str | None,
    trust_code: bool,
    as_json: bool,
) -> None:
    """Write the serving graph of SOURCE to the new directory OUT.

    SOURCE is a .keras file, a directory with one, or a checkpoint directory that training left behind.
    """
    import_tensorflow_quietly()
    from servegraph.export_serving_graph.export import export
    from servegraph.machines.sizes import format_size
    from servegraph.trained.trainer import load_trainer

    if trainer:
        load_trainer(trainer)
    exported = export(source, out, schema_file=schema, samples=samples, trust_code=trust_code)
    if as_json:
        print_json({"path": str(out), **dataclasses.asdict(exported)})
        return
    click.echo(f"{out}: {format_size(exported.size_bytes)}, serving-only")
    click.echo(f"  inputs   {', '.join(exported.inputs)}")
    click.echo(f"  outputs  {', '.join(exported.outputs)}")
    click.echo(
        f"  proof    {exported.proof_rows} answers in batches of 1, 2 and 7, "
        f"largest difference {exported.max_abs_diff:g}"
    )
