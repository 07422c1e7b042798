"""Tables of text on stdout: no cell is cut, whatever the width, and no cell is read as markup."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

from servegraph.printable import printable

UNLIMITED = 1_000_000  # columns where no terminal is: a line of a log or a file is as long as it must be


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, figures: Collection[str] = (), header: bool = True
) -> None:
    """Print `rows` under `columns`; in a narrow terminal words are folded, but not those of the columns `figures`."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if is_terminal else UNLIMITED)
    cells = [[printable(cell) for cell in row] for row in rows]
    table = Table(box=None, show_header=header, header_style="dim", padding=(0, 2, 0, 0))
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
