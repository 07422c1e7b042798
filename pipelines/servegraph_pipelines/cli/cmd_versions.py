"""`servegraph versions --target T --name NAME`."""

from __future__ import annotations

import click

from servegraph.deploy_version.plan import DeployedVersion, ModelVersions
from servegraph.deploy_version.targets import Place, open_target
from servegraph_pipelines.cli.outcome import echo, print_json
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


def _remark(version: DeployedVersion, previous: str | None) -> str:
    remarks = ["previous"] * (version.version == previous) + ["files lost"] * version.files_lost
    return f" ({', '.join(remarks)})" if remarks else ""


def _print_table(versions: ModelVersions) -> None:
    from servegraph.machines.sizes import format_size
    from servegraph_pipelines.cli.tables import print_table

    echo(f"{versions.name} on {versions.target}: {versions.resource}")
    rows = [
        (
            version.version + _remark(version, versions.previous),
            f"{version.traffic_percent} %",
            ", ".join(version.labels),
            version.config.machine_type or "",
            format_size(version.size_bytes),
            version.created,
            version.digest[:19],
        )
        for version in versions.versions
    ]
    columns = ("version", "traffic", "labels", "machine", "size", "created", "digest")
    print_table(columns, rows, figures=("version", "traffic", "size"))
