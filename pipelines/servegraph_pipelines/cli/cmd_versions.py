"""`servegraph versions --target T --name NAME`."""

from __future__ import annotations

import click

from servegraph.deploy_version.plan import ModelVersions
from servegraph.deploy_version.targets import Place, open_target
from servegraph_pipelines.cli.outcome import print_json
from servegraph_pipelines.cli.target_options import target_options


@click.command("versions")
@target_options
def command(target: str, place: Place, name: str, as_json: bool) -> int:
    """List the deployed versions of a model, newest first."""
    versions = open_target(target, place).versions(name)
    if as_json:
        print_json(versions.to_json())
    else:
        _print_table(versions)
    return 0


def _print_table(versions: ModelVersions) -> None:
    from rich.console import Console
    from rich.table import Table

    from servegraph.machines.sizes import format_size

    table = Table(title=f"{versions.name} on {versions.target}: {versions.resource}", title_justify="left")
    for column in ("version", "traffic", "labels", "machine", "size", "created", "digest"):
        table.add_column(column, justify="right" if column in ("version", "traffic", "size") else "left")
    for version in versions.versions:
        note = " (previous)" if version.version == versions.previous else ""
        table.add_row(
            version.version + note,
            f"{version.traffic_percent} %",
            ", ".join(version.labels),
            version.config.machine_type or "",
            format_size(version.size_bytes),
            version.created,
            version.digest[:19],
        )
    Console().print(table)
