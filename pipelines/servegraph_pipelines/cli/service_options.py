"""The options of `deploy` that say how a service runs a version; they arrive as one `service`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from servegraph.deploy_version.plan import ServiceOptions
from servegraph.errors import InputError
from servegraph.explanations.rules import METHODS
from servegraph_pipelines.cli.local_paths import FILE

Command = Callable[..., Any]

# One row an option: its name as in ServiceOptions, its type, what it is for.
OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("min-replicas", int, "Replicas that always run; 0 where the target can go down to none.  [default: 1]"),
    ("max-replicas", int, "The most replicas under load."),
    ("image", str, "Serving image. On Vertex: servegraph's own in your Artifact Registry if not given."),
    ("runtime-version", str, "Runtime of ai-platform or KServe."),
    ("python-version", str, "Python of ai-platform."),
    ("service-account", str, "Account that the server runs as."),
    ("encryption-key", str, "Key of your own: projects/P/locations/L/keyRings/R/cryptoKeys/K."),
    ("network", str, "Network of a private endpoint: projects/NUMBER/global/networks/NAME."),
    ("reservation", str, "Reservation to take machines from: projects/P/zones/Z/reservations/NAME."),
    ("explain", click.Choice(METHODS), "Have predictions explained; see `servegraph explain`."),
    ("explain-output", str, "Of several numeric outputs the one to explain."),
    ("explanation", FILE, "JSON file with an explanation spec of one's own."),
)


def service_options(function: Command) -> Command:
    """Add the options of `OPTIONS`, `--spot` and `--service-label`."""

    @functools.wraps(function)
    def with_service(service_labels: tuple[str, ...], **options: Any) -> Any:
        names = [name.replace("-", "_") for name, _, _ in OPTIONS] + ["spot"]
        given = {name: value for name in names if (value := options.pop(name)) is not None and value is not False}
        if "explanation" in given:
            given["explanation"] = given["explanation"].read_text(encoding="utf-8")
        return function(service=ServiceOptions(**given, labels=_labels(service_labels)), **options)

    label = "Label for what is made, for billing and search; may be repeated."
    command = click.option("--service-label", "service_labels", metavar="K=V", multiple=True, help=label)(with_service)
    command = click.option("--spot", is_flag=True, help="Run on spot machines.")(command)
    for name, kind, what in reversed(OPTIONS):
        command = click.option(f"--{name}", type=kind, help=what)(command)
    return command


def _labels(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [text.partition("=") for text in texts]
    for text, (key, found, _) in zip(texts, pairs, strict=True):
        if not key or not found:
            raise InputError(f"{text!r} is not a label.", code="BAD_LABEL", fix="Write it like team=fraud.")
    return tuple((key, value) for key, _, value in pairs)
