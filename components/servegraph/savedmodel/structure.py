"""Would protobuf read it: every message inside of a graph file, also those that the reader passes over.

A graph file has no checksum. TensorFlow reads all of it before it does anything, so damage in what only Python uses,
such as the object graph, keeps a server from loading as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from servegraph.savedmodel.wire import BYTES, VARINT, Malformed, decoded, fixed_size, read_varint

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
        for number, field_start, field_end in _payloads(content, start, end):
            kind = kinds.get(number)
            if kind is None:
                continue
            if kind == TEXT:
                part = content[field_start:field_end]
                if not part.isascii():
                    decoded(part)
            else:
                waiting.append((kind, field_start, field_end, depth + 1))


def _payloads(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the fields with a payload: `wire.fields`, without a value for each.

    Raises:
        Malformed: the bytes are not a message.
    """
    position = start
    try:
        while position < end:
            tag = content[position]
            position += 1
            if tag > 127:
                tag, position = read_varint(content, position - 1)
            if tag < 8:
                raise Malformed(f"the field before byte {position} has the number 0")
            kind = tag & 7
            if kind not in (BYTES, VARINT):
                position += fixed_size(kind, position)
                continue
            size = content[position]  # or the value of a number
            position += 1
            if size > 127:
                size, position = read_varint(content, position - 1)
            if kind == BYTES:
                payload, position = position, position + size
                if size and position <= end:
                    yield tag >> 3, payload, position
    except IndexError:
        raise Malformed(f"the message ends inside a field at byte {position}") from None
    if position > end:
        raise Malformed(f"the last field of the bytes {start} to {end} ends at byte {position}")
