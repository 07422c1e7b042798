"""Text of others made fit for a terminal: names in a model may hold what clears the screen or forges a line."""

from __future__ import annotations

# C0, C1, what ends a line elsewhere, and what turns the direction of writing.
_CONTROLS = {*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
_IN_LINES = {code: f"\\u{code:04x}" for code in _CONTROLS - {ord("\n"), ord("\t")}}
_IN_A_LINE = _IN_LINES | {ord("\n"): "\\n", ord("\t"): "\\t"}


def printable(text: str) -> str:
    """Return `text` as one line without control characters: each is written as JSON escapes it."""
    return text.translate(_IN_A_LINE)


def printable_lines(text: str) -> str:
    """Return a text of several lines, such as a JSON document or another program's error, with lines and tabs kept."""
    return text.replace("\r\n", "\n").translate(_IN_LINES)
