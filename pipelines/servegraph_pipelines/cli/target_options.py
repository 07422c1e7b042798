"""The options that say which model on which target, shared by the verbs that deploy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from servegraph.deploy_version.plan import Outcome
from servegraph.deploy_version.targets import TARGETS, Place
from servegraph_pipelines.cli.outcome import echo

Command = Callable[..., Any]


# One row an option that says where a target is: its name, what it is for.
PLACES = {
    "root": "Directory of the local target.",
    "project": "Google Cloud project.",
    "region": "Region, like us-central1.",
    "staging": "Where model files go for the cloud: gs://bucket/prefix.",
    "namespace": "Kubernetes namespace.",
    "context": "Context of the kubeconfig; the current one if not given.",
    "api-url": "Another address of the service: an emulator's or a private endpoint's.",
}


def target_options(function: Command) -> Command:
    """Add `--target`, `--name`, `--json` and the options of `PLACES`, which arrive as one `place`."""

    @functools.wraps(function)
    def with_place(**options: Any) -> Any:
        values = {name.replace("-", "_"): options.pop(name.replace("-", "_")) for name in PLACES}
        if options["target"] == "local":
            show_unused([name for name in PLACES if name != "root" and values[name.replace("-", "_")]])
        return function(place=Place(**values), **options)

    command: Command = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(with_place)
    for name, what in reversed(PLACES.items()):
        command = click.option(f"--{name}", help=what)(command)
    command = click.option("--name", required=True, metavar="NAME", help="Name of the model on the target.")(command)
    targets = click.Choice(list(TARGETS))
    return click.option("--target", type=targets, default="local", show_default=True, help="Where.")(command)


def show_unused(names: Sequence[str]) -> None:
    """Say which options the local target has no use for."""
    if names:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        echo(f"Not used by the local target, which is this machine: {options}.", head="note", colour="yellow", err=True)


def show_warnings(warnings: tuple[str, ...]) -> None:
    """Print warnings on stderr, where they are seen with `--json` too."""
    for warning in warnings:
        echo(warning, head="warning", colour="yellow", err=True)


def show_outcome(outcome: Outcome) -> None:
    """Print what a change came to, in two or three lines."""
    if outcome.version is None:
        echo(f"{outcome.name}: {outcome.outcome}, no version is live.")
        return
    previous = "" if outcome.previous is None else f" (before it: {outcome.previous})"
    done = outcome.outcome.replace("_", " ")
    share = outcome.traffic.get(outcome.version, 0)
    state = "is live" if share == 100 else f"has {share} % of the traffic"
    echo(f"{outcome.name}: {done}, version {outcome.version} {state}{previous}.")
    echo(f"  {outcome.resource}")
    if outcome.removed:
        echo(f"  removed: {', '.join(outcome.removed)}")
