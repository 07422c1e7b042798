"""What somebody meant who wrote a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the question, with a blank after it, whether the known name closest to `name` was meant; empty if none."""
    close = get_close_matches(name, [*known], n=1)
    return f"Did you mean {close[0]}? " if close else ""
