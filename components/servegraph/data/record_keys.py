"""What tells one record from another, whatever a model makes of it: a number of its cells as the data has them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.data.contents import as_text
from servegraph.data.text import is_missing, is_number

_BETWEEN = "\x1f"


def record_keys(cells: Mapping[str, Sequence[Any]]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each record of `cells`, which has a column of the same length by each name: shape [rows].

    It is over `name=value` of the filled cells in the order of the names, joined by U+001F. A value is the cell's text
    without white space around it; of a number, however it is written or stored, that of the float32 next to it. So a
    record keeps its key where columns change places, where one is added that is empty in it, and whatever a schema or
    the other records make of its cells. What says that there is no number is as good as empty.
    """
    columns = [_named(name, cells[name]) for name in sorted(cells)]
    records = zip(*columns, strict=True)
    return np.fromiter((zlib.crc32(_BETWEEN.join(filter(None, record)).encode()) for record in records), np.uint32)


def _named(name: str, cells: Sequence[Any]) -> list[str]:
    """Return `name=value` of each cell, nothing of an empty one; each different cell is looked at once."""
    different = set(cells)
    numbers = [cell for cell in different if not is_missing(cell) and is_number(cell)]
    with np.errstate(over="ignore"):  # a number beyond float32 is refused where the column is one of numbers
        values = np.array(list(map(float, numbers)), np.float32).tolist()
    found = {cell: "" if is_missing(cell) else f"{name}={as_text(cell)}" for cell in different}
    found |= {cell: f"{name}={value}" for cell, value in zip(numbers, values, strict=True)}
    return [found[cell] for cell in cells]
