"""Tables of text on stdout: no cell is cut, whatever the width, and no cell is read as markup."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

from servegraph.printable import printable

_LEAST = 20  # columns for texts, or as many as the longest takes: in fewer a table is hard to read
_GAP = 2
UNLIMITED = 1_000_000  # columns where no terminal is: a line of a log or a file is as long as it must be


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, figures: Collection[str] = (), header: bool = True
) -> None:
    """Print `rows` under `columns`; in a narrow terminal words are folded, but not those of the columns `figures`.

    In one so narrow that a column would have no room, each row is a list of its cells.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if is_terminal else UNLIMITED)
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(cell_len(cell) for cell in column) for column in zip(columns, *cells, strict=True)]
    least = [width if name in figures else min(width, _LEAST) for name, width in zip(columns, widths, strict=True)]
    if is_terminal and sum(least) + _GAP * (len(least) - 1) > console.width:
        _print_list(columns, cells, header=header)
        return
    dim = "" if console.no_color else "dim"  # which rich leaves in
    table = Table(box=None, show_header=header, header_style=dim, padding=(0, _GAP, 0, 0))
    for place, name in enumerate(columns):
        is_figure = name in figures
        texts = [name, *(row[place] for row in cells)] if is_figure else [name]
        table.add_column(
            Text(name),
            justify="right" if is_figure else "left",
            no_wrap=is_figure,
            min_width=max(map(cell_len, texts)),
            overflow="fold",
        )
    for row in cells:
        table.add_row(*map(Text, row))
    with console.capture() as capture:
        console.print(table, crop=False)
    for line in capture.get().splitlines():
        print(line.rstrip())  # the last column is padded too


def _print_list(columns: Sequence[str], cells: Iterable[Sequence[str]], *, header: bool) -> None:
    """Print each row as its first cell, and below it the others that hold something, by the names of their columns."""
    for first, *others in cells:
        print(first)
        for name, cell in zip(columns[1:], others, strict=True):
            if cell:
                print(f"  {name}: {cell}" if header else f"  {cell}")
