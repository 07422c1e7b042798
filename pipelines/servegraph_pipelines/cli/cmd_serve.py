"""`servegraph serve ROOT`."""

from __future__ import annotations

from pathlib import Path

import click

from servegraph.serve.server import DEFAULT_HOST, DEFAULT_MAX_BODY_BYTES, DEFAULT_PORT, ServeOptions, serve


@click.command("serve")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: any free one.")
@click.option("--name", metavar="NAME", help="Serve only this model.")
@click.option(
    "--max-body-bytes",
    type=click.IntRange(min=1),
    default=DEFAULT_MAX_BODY_BYTES,
    show_default=True,
    help="Larger requests are answered with 413.",
)
@click.option("--access-log", is_flag=True, help="Log every request.")
def command(root: Path, host: str, port: int, name: str | None, max_body_bytes: int, access_log: bool) -> int:
    """Serve the models below ROOT on TF Serving's REST routes, and follow new versions without a restart.

    ROOT/NAME/<integer>/ are versions of the model NAME; `servegraph deploy` puts them there.
    """
    return serve(
        ServeOptions(root=root, host=host, port=port, name=name, max_body_bytes=max_body_bytes, access_log=access_log)
    )
