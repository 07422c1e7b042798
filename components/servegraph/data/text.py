"""Cells of a table: white space, the same as in the graph of a model, and numbers."""

from __future__ import annotations

import math
import string
from typing import Any

# What stands for no number in a column of numbers, in lower case; in a column of text these are values.
MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "?")


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
