"""What a column holds, gathered from all its cells: how many are empty, which values there are, whether as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.data.text import is_missing, strip

KEPT_VALUES = 200_000  # of a column with more different ones the others are looked at and forgotten


@dataclass
class Contents:
    """The cells of a column so far.

    `values` are the different ones as text, up to about `KEPT_VALUES`. `numbers` are those of the filled cells but
    `absent` ones, which say that there is none, and None as soon as a cell is something else; they are kept because a
    median is asked for, as float32 like the table that is trained on.
    """

    rows: int = 0
    empty: int = 0
    absent: int = 0
    repeats: bool = False
    values: set[str] = field(default_factory=set)
    numbers: list[NDArray[np.float32]] | None = field(default_factory=list)

    def add(self, cells: Sequence[Any]) -> None:
        """Take in cells as a file holds them: text, bytes or numbers."""
        different = set(cells)
        texts = set(map(as_text, different))
        blank = {cell for cell in different if not as_text(cell)} if "" in texts else set()
        filled = [cell for cell in cells if cell not in blank] if blank else cells
        texts.discard("")
        self.rows += len(cells)
        self.empty += len(cells) - len(filled)
        self.repeats = self.repeats or len(texts) < len(filled) or not texts.isdisjoint(self.values)
        if len(self.values) < KEPT_VALUES:
            self.values |= texts
        if self.numbers is not None:
            try:
                found = _numbers(filled)
            except ValueError:
                self.numbers = None
            else:
                self.numbers.append(found)
                self.absent += len(filled) - len(found)

    @property
    def is_blank(self) -> bool:
        """Whether all cells are empty, or words for a missing number."""
        return self.numbers is not None and self.rows == self.empty + self.absent

    @property
    def is_numeric(self) -> bool:
        """Whether there are numbers, and nothing else but empty cells and words for a missing one."""
        return self.numbers is not None and self.rows > self.empty + self.absent

    def median(self) -> float:
        """Return the middle one of the numbers, the upper one of two, as the shortest text has it that means it."""
        numbers = np.concatenate(self.numbers or [])
        return float(str(np.partition(numbers, len(numbers) // 2)[len(numbers) // 2]))


def _numbers(cells: Sequence[Any]) -> NDArray[np.float32]:
    """Return the numbers without words that say there is none. Raises `ValueError` where a cell is neither."""
    with suppress(ValueError), np.errstate(over="ignore"):
        numbers = np.array(list(map(float, cells)), np.float32)
        if not np.isnan(numbers).any():
            return numbers
    return np.array([float(cell) for cell in cells if not is_missing(cell)], np.float32)


def as_text(cell: Any) -> str:
    """Return a cell as text without white space around it."""
    if isinstance(cell, str):
        return strip(cell)
    return strip(cell.decode("utf-8", "replace")) if isinstance(cell, bytes) else str(cell)
