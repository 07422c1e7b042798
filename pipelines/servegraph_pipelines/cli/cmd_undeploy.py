"""`servegraph undeploy --target T --name NAME (VERSION | --all)`."""

from __future__ import annotations

import click

from servegraph.deploy_version.targets import Place, open_target
from servegraph_pipelines.cli.outcome import print_json
from servegraph_pipelines.cli.target_options import show_outcome, show_warnings, target_options


@click.command("undeploy")
@click.argument("version", required=False)
@target_options
@click.option("--all", "everything", is_flag=True, help="Remove the model with all its versions, the live one too.")
def command(version: str | None, target: str, place: Place, name: str, as_json: bool, everything: bool) -> int:
    """Remove VERSION, which must have no traffic, or with --all the whole model. Gone already is fine."""
    if (version is None) == (not everything):
        raise click.UsageError("Give either a VERSION or --all.")
    outcome = open_target(target, place).undeploy(name, version)
    show_warnings(outcome.warnings)
    if as_json:
        print_json(outcome.to_json())
    else:
        show_outcome(outcome)
    return 0
