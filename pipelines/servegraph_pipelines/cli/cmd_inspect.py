"""`servegraph inspect MODEL`: what a SavedModel holds and what is wrong with it."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from servegraph_pipelines.cli.outcome import print_json


@click.command("inspect")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as a web page.")
@click.option("--verify", is_flag=True, help="Read every tensor and compare its checksum.")
@click.option("--platform", metavar="NAME", help="Would it deploy there? E.g. ai-platform, vertex, kserve, local.")
def command(model: str, as_json: bool, html: Path | None, verify: bool, platform: str | None) -> int:
    """Show what the SavedModel MODEL (a path or gs://…) holds and what is wrong with it.

    Exit code 1 if anything is found that keeps it from being served.
    """
    from servegraph.inspect_graph.inspect import inspect

    gc.disable()  # a short process that makes many values and no cycles: looking for them is a tenth of its time
    inspection = inspect(model, verify=verify, platform=platform)
    if html is not None:
        from servegraph.inspect_graph.html import render as render_html
        from servegraph.storage.local import answering

        with answering("write", html):
            html.write_text(render_html(inspection), encoding="utf-8")
    if as_json:
        print_json(inspection.to_json())
    else:
        from servegraph.inspect_graph.text import render

        click.echo(render(inspection, _paint))
        if html is not None:
            click.echo(f"report: {html}", err=True)
    return 1 if inspection.has_errors else 0


def _paint(text: str, colour: str) -> str:
    return click.style(text, bold=True) if colour == "bold" else click.style(text, fg=colour)
