"""Would protobuf read it: every message inside of a graph file, also those that the reader passes over.

A graph file has no checksum. TensorFlow reads all of it before it does anything, so damage in what only Python uses,
such as the object graph, keeps a server from loading as well.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from servegraph.savedmodel.wire import Malformed, decoded, fields

TEXT = "text"
MAX_DEPTH = 100  # protobuf's own limit


@cache
def messages() -> dict[str, dict[int, str]]:
    """Return, for each message, the fields that hold text or a message, and which."""
    table: dict[str, dict[int, str]] = {}
    for line in (Path(__file__).parent / "messages.tsv").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, *rest = line.split("\t")
            table[name] = {int(number): kind for number, kind in zip(rest[::2], rest[1::2], strict=True)}
    return table


def check_structure(content: bytes, message: str = "SavedModel") -> None:
    """Walk through all messages of an encoded one. Raises `Malformed` where protobuf would not read it."""
    table = messages()
    waiting = [(message, 0, len(content), 1)]
    while waiting:
        name, start, end, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise Malformed(f"messages are nested more than {MAX_DEPTH} deep at byte {start}")
        kinds = table[name]
        for number, _, field_start, field_end in fields(content, start, end):
            if not number:
                raise Malformed(f"a field of {name} has the number 0, in the bytes {start} to {end}")
            kind = kinds.get(number)
            if kind is None or field_start == field_end:
                continue
            if kind == TEXT:
                part = content[field_start:field_end]
                if not part.isascii():
                    decoded(part)
            else:
                waiting.append((kind, field_start, field_end, depth + 1))
