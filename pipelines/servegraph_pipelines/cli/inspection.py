"""What `servegraph inspect` does, without click."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from servegraph.inspect_graph.inspect import inspect
from servegraph_pipelines.cli.outcome import echo, print_json

COLOURS = {"bold": 1, "red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36}  # of ANSI terminals


def show(
    model: str, *, as_json: bool = False, html: Path | None = None, verify: bool = False, platform: str | None = None
) -> int:
    """Inspect a model, print the report, and return the exit code: 1 if anything keeps it from being served."""
    inspection = inspect(model, verify=verify, platform=platform)
    if html is not None:
        from servegraph.inspect_graph.html import render as render_html
        from servegraph.storage.local import write_file

        write_file(html, render_html(inspection).encode())
    if as_json:
        print_json(inspection.to_json())
    else:
        from servegraph.inspect_graph.text import render

        has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print(render(inspection, _paint) if has_colours else render(inspection))
        if html is not None:
            echo(f"report: {html}", err=True)
    return 1 if inspection.has_errors else 0


def _paint(text: str, colour: str) -> str:
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"
