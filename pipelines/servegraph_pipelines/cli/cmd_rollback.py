"""`servegraph rollback --target T --name NAME [--to VERSION]`."""

from __future__ import annotations

import click

from servegraph.deploy_version.targets import Place, open_target
from servegraph_pipelines.cli.outcome import print_json
from servegraph_pipelines.cli.target_options import show_outcome, show_warnings, target_options


@click.command("rollback")
@target_options
@click.option("--to", metavar="VERSION", help="Version that gets the traffic; otherwise the one before the live one.")
def command(target: str, place: Place, name: str, as_json: bool, to: str | None) -> int:
    """Put the previous version back in front of the traffic.

    Doing it twice does not go back to the version that was rolled back: name that one with --to.
    """
    outcome = open_target(target, place).rollback(name, to)
    show_warnings(outcome.warnings)
    if as_json:
        print_json(outcome.to_json())
    else:
        show_outcome(outcome)
    return 0
