"""The options that say which model on which target, shared by the verbs that deploy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from servegraph.deploy_version.plan import Outcome
from servegraph.deploy_version.targets import TARGETS

Command = Callable[..., Any]


def target_options(function: Command) -> Command:
    """Add `--target`, `--root`, `--name` and `--json` to a command."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        click.option("--name", required=True, metavar="NAME", help="Name of the model on the target."),
        click.option("--root", metavar="ROOT", help="Directory that the local target deploys to."),
        click.option("--target", type=click.Choice(list(TARGETS)), default="local", show_default=True, help="Where."),
    ):
        function = option(function)
    return function


def show_warnings(warnings: tuple[str, ...]) -> None:
    """Print warnings on stderr, where they are seen with `--json` too."""
    for warning in warnings:
        click.echo(f"{click.style('warning', fg='yellow', bold=True)} {warning}", err=True)


def show_outcome(outcome: Outcome) -> None:
    """Print what a change came to, in two or three lines."""
    if outcome.version is None:
        click.echo(f"{outcome.name}: {outcome.outcome}, no version is live.")
        return
    previous = "" if outcome.previous is None else f" (before it: {outcome.previous})"
    done = outcome.outcome.replace("_", " ")
    click.echo(f"{outcome.name}: {done}, version {outcome.version} is live{previous}.")
    click.echo(f"  {outcome.resource}")
    if outcome.removed:
        click.echo(f"  removed: {', '.join(outcome.removed)}")
