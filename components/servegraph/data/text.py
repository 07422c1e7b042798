"""Cells of a table: white space, the same as in the graph of a model, and numbers."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

# What stands for no number in a column of numbers, in lower case; in a column of text these are values.
MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "?")


_LONGEST_CELL = 60  # characters of a cell or a name in a message
_MOST_NAMES = 20


def quoted(cell: Any) -> str:
    """Return a cell, or a name, in quotes for a message; of a long one its beginning: a damaged file is one cell."""
    if isinstance(cell, (str, bytes)) and len(cell) > _LONGEST_CELL:
        return f"{cell[:_LONGEST_CELL]!r} … ({len(cell)} characters)"
    return repr(cell)


def listed(names: Sequence[Any]) -> str:
    """Return names in quotes for a message, the first of them where there are many."""
    more = f" … ({len(names)} in all)" if len(names) > _MOST_NAMES else ""
    return f"[{', '.join(map(quoted, names[:_MOST_NAMES]))}{more}]"


def strip(text: str) -> str:
    """Return `text` without the white space around it that `tf.strings.strip` removes: ASCII, not all of Unicode.

    A value that was stripped of more than a graph strips would be out of the vocabulary there.
    """
    return text.strip(string.whitespace)


def is_missing(cell: Any) -> bool:
    """Whether a cell of a column of numbers says that there is none: as text, or as the NaN of a tf.Example."""
    return strip(cell).lower() in MISSING if isinstance(cell, str) else isinstance(cell, float) and math.isnan(cell)


def is_number(cell: Any) -> bool:
    """Whether a cell is a number or the text of one."""
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True
