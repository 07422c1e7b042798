"""`servegraph inspect MODEL`: what a SavedModel holds and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import click

from servegraph_pipelines.cli.local_paths import NEW_FILE


@click.command("inspect")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--html", type=NEW_FILE, help="Write the report as a web page.")
@click.option("--verify", is_flag=True, help="Read every tensor and compare its checksum.")
@click.option("--platform", metavar="NAME", help="Would it deploy there? E.g. ai-platform, vertex, kserve, local.")
def command(model: str, as_json: bool, html: Path | None, verify: bool, platform: str | None) -> int:
    """Show what the SavedModel MODEL (a path or gs://…) holds and what is wrong with it.

    Exit code 1 if anything is found that keeps it from being served.
    """
    from servegraph_pipelines.cli.inspection import show

    return show(model, as_json=as_json, html=html, verify=verify, platform=platform)
