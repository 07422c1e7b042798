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
    from servegraph.errors import StorageError

    inferred = infer(data, label)
    for note in inferred.notes:
        echo(f"note: {note}", err=True)
    text = dump(inferred.schema)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise StorageError(
            f"The schema cannot be written to {out}: {exc}.",
            code="CANNOT_WRITE",
            fix="Give a path that can be written, in a directory that has space left.",
        ) from exc
