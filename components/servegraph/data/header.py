"""Whether the first record of a CSV file names its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from servegraph.data.text import is_missing, is_number, strip

_RECURS = 2


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first of `rows` names the columns.

    Text above numbers is a name, however little the other columns look like it: an index has none, years are numbers,
    a flag may be called what it holds. Where no column says that, one number in the row says that it is a record. Else
    all is text, and columns vote: values that recur below without the first are for a header, the first among them,
    or nothing above text, is against one. Without a vote it is one.
    """
    if not rows:
        return False
    first, *below = [[strip(cell) for cell in row] for row in rows]
    columns = list(zip(first, map(Counter, zip(*below, strict=True)), strict=True)) if below else []
    if any(_is_text_above_numbers(cell, values) for cell, values in columns):
        return True
    if any(map(is_number, first)):
        return False
    votes = [_vote(cell, values) for cell, values in columns]
    return -1 not in votes or sum(votes) > 0


def column_names(row: Sequence[str]) -> list[str]:
    """Return the names in a header; a column without one is called by its place, as where there is no header."""
    return [cell.strip() or placed for cell, placed in zip(row, places(len(row)), strict=True)]


def places(count: int) -> list[str]:
    """Return the names of columns that have none."""
    return [f"column_{number}" for number in range(1, count + 1)]


def _is_text_above_numbers(cell: str, values: Counter[str]) -> bool:
    return not is_missing(cell) and not is_number(cell) and _are_numbers(values)


def _are_numbers(values: Counter[str]) -> bool:
    filled = [value for value in values if not is_missing(value)]
    return bool(filled) and all(map(is_number, filled))


def _vote(cell: str, values: Counter[str]) -> int:
    if not cell:
        return 0 if _are_numbers(values) else -1
    if cell in values:
        return -1
    return 1 if min(values.values()) >= _RECURS else 0
