"""Tables of text: in a pipe and at a terminal, wide and narrow."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from servegraph.printable import printable, printable_lines

TABLE = """
from servegraph_pipelines.cli.tables import print_table
print_table(("name", "size", "why"), [("a[/b]", "123,456", "x" * 50 + "[v1]"), ("c\\x1b[2J", "7", "")], figures=["size"])
"""


def at_a_terminal(columns: int) -> str:
    parent, child = pty.openpty()
    try:
        environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
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
    lines = at_a_terminal(45).splitlines()
    assert lines[1].startswith("a[/b]") and "123,456" in lines[1]
    assert "".join(line.split()[-1] for line in lines[1:-1]) == f"{'x' * 50}[v1]"


@pytest.mark.parametrize("columns", [10, 20, 30, 40])
def test_where_a_column_has_no_room_each_row_is_a_list(columns: int) -> None:
    assert at_a_terminal(columns).splitlines() == [
        "a[/b]",
        "  size: 123,456",
        f"  why: {'x' * 50}[v1]",
        "c\\u001b[2J",
        "  size: 7",
    ]


@pytest.mark.parametrize("columns", [40, 200])
def test_without_colour_there_is_no_escape_at_all(columns: int) -> None:
    assert "\x1b" not in at_a_terminal(columns)


def test_a_tab_is_kept_in_lines_and_written_as_json_does_within_one() -> None:
    assert printable_lines("a\tb\r\nc\rd\n") == "a\tb\nc\\u000dd\n"
    assert printable("a\tb\r\nc") == "a\\tb\\u000d\\nc"
