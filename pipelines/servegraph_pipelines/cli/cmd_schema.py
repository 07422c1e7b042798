"""`servegraph schema DATA`: infer the schema of a data set."""

from __future__ import annotations

from pathlib import Path

import click

from servegraph_pipelines.cli.local_paths import NEW_FILE
from servegraph_pipelines.cli.outcome import echo


@click.command("schema")
@click.argument("data")
@click.option("--label", help="Name of the label column; the last column if not given.")
@click.option("--out", type=NEW_FILE, help="File to write; stdout if not given.")
def command(data: str, label: str | None, out: Path | None) -> None:
    """Infer the schema of DATA (CSV or TFRecord: a path, a glob or gs://) and write it as YAML for editing."""
    from servegraph.data.infer import infer
    from servegraph.data.schema_file import dump
    from servegraph.storage.local import write_file

    if out is not None and out.exists():
        _require_other(out, data)
    inferred = infer(data, label)
    for note in inferred.notes:
        echo(f"note: {note}", err=True)
    text = dump(inferred.schema)
    if out is None:
        click.echo(text, nl=False)
        return
    write_file(out, text.encode())


def _require_other(out: Path, data: str) -> None:
    """Raise `InputError` (code `OUTPUT_EXISTS`) where the schema would take the place of data."""
    from servegraph.errors import InputError
    from servegraph.storage import match

    if str(out.resolve()) in {str(Path(file.uri).resolve()) for file in match(data)}:
        raise InputError(
            f"{str(out)!r} holds the data itself.", code="OUTPUT_EXISTS", fix="Give --out another file for the schema."
        )
