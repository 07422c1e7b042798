"""`servegraph serve ROOT`."""

from __future__ import annotations

import os
from typing import Any

import click

from servegraph.serve.options import (
    DEFAULT_HOST,
    DEFAULT_MAX_BODY_BYTES,
    DEFAULT_PORT,
    DEFAULT_TIMEOUT_S,
    DEFAULT_WAITING,
    options_of,
)


@click.command("serve")
@click.argument("root", required=False)
@click.option("--host", help=f"Address to listen on.  [default: {DEFAULT_HOST}; on Vertex AI all]")
@click.option("--port", type=click.IntRange(0, 65535), help=f"0: any free one.  [default: {DEFAULT_PORT}]")
@click.option("--name", metavar="NAME", help="Serve only this model.")
@click.option(
    "--predictor", metavar="MODULE:CLASS", help="A custom prediction routine, written for Vertex's SDK or not."
)
@click.option("--trust-code", "trusts_code", is_flag=True, help="Run the custom prediction routines that models bring.")
@click.option(
    "--max-body-bytes",
    type=click.IntRange(min=1),
    default=DEFAULT_MAX_BODY_BYTES,
    show_default=True,
    help="Larger requests are answered with 413.",
)
@click.option(
    "--batch-rows",
    type=click.IntRange(min=1),
    help="Rows of requests that share a call; 1: none does.  [default: as measured and stored with the model, else 64]",
)
@click.option(
    "--ignore-settings",
    "uses_settings",
    flag_value=False,
    default=True,
    help="Do not follow what `servegraph measure --save` stored with the models.",
)
@click.option(
    "--waiting",
    type=click.IntRange(min=1),
    default=DEFAULT_WAITING,
    show_default=True,
    help="Requests that may wait for a model; more are answered with 429.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    help="Requests that took longer are answered with 504.",
)
@click.option("--access-log", is_flag=True, help="Log every request as a line of JSON.")
@click.option("--no-probe", "is_probed", flag_value=False, default=True, help="Do not ask golden requests at loading.")
def command(root: str | None, **given: Any) -> int:
    """Serve the models below ROOT on TF Serving's REST routes, and follow new versions without a restart.

    ROOT/NAME/<integer>/ are versions of the model NAME; `servegraph deploy` puts them there. Without ROOT the model is
    what Vertex AI's AIP_STORAGE_URI names, on the port and routes that its variables give. One on gs:// is fetched at
    the start and not followed.
    """
    from servegraph.serve.server import serve

    return serve(options_of(os.environ, root, **given))
