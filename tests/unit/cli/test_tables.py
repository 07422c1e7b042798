"""Tables of text: in a pipe and at a terminal, wide and narrow."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

TABLE = """
from servegraph_pipelines.cli.tables import print_table
print_table(("name", "size", "why"), [("a[/b]", "123,456", "x" * 50 + "[v1]"), ("c\\x1b[2J", "7", "")], figures=["size"])
"""


def at_a_terminal(columns: int) -> str:
    parent, child = pty.openpty()
    try:
        environment = {**os.environ, "COLUMNS": str(columns), "TERM": "dumb"}
        subprocess.run([sys.executable, "-c", TABLE], stdout=child, env=environment, check=True)
        return os.read(parent, 10_000).decode()
    finally:
        os.close(parent)
        os.close(child)


def test_a_pipe_has_no_width() -> None:
    environment = {**os.environ, "COLUMNS": "20"}
    done = subprocess.run([sys.executable, "-c", TABLE], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines() == [
        "name           size  why",
        f"a[/b]       123,456  {'x' * 50}[v1]",
        "c\\u001b[2J        7",
    ]


def test_a_narrow_terminal_folds_words_and_no_figure() -> None:
    lines = at_a_terminal(40).splitlines()
    assert lines[1].startswith("a[/b]") and "123,456" in lines[1]
    assert "".join(line.split()[-1] for line in lines[1:-1]) == f"{'x' * 50}[v1]"
    assert "123,456" in at_a_terminal(10)
