"""Metrics as people read them, in reports, at the terminal and in refusals: one name and one format for each."""

from __future__ import annotations

_NAMES = {"mae": "mean absolute error"}  # what the trained model's metrics call it; the others spell it out


def metric_name(name: str) -> str:
    """Return the words of a metric's key."""
    return _NAMES.get(name, name.replace("_", " "))


def metric_value(value: float) -> str:
    """Return a value with four decimals, or with four digits where it is so small that decimals would not tell it."""
    return _rounded(value, 4)


def percent(part: float) -> str:
    """Return a part of 1 as percent with one decimal, or with one digit where it is less than one percent."""
    return f"{_rounded(100 * part, 1)} %"


def _rounded(value: float, digits: int) -> str:
    is_told = not value or abs(value) >= 10 ** (1 - digits)
    return f"{value:.{digits}f}" if is_told else f"{value:.{digits}g}"
