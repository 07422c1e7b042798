"""Protobuf's wire format, walked through a window over a file of any size.

A payload that nobody asks for is skipped, not read: a graph with gigabytes of constants costs a few reads.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from servegraph.storage.directory import RandomAccess

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # groups (3 and 4) do not occur in these files
MAX_VARINT_BITS = 63
LONGEST_FIELD_HEAD = 20  # a tag and a length, ten bytes each at most


class Malformed(ValueError):
    """Bytes that do not follow the format; the message says where. Callers turn it into a ModelError."""


class Field(NamedTuple):
    """One field of a message: the `value` of a number, or `start` and `end` of a payload."""

    number: int
    value: int
    start: int
    end: int


def read_varint(buffer: bytes, position: int) -> tuple[int, int]:
    """Return an unsigned varint and the position after it. Raises `Malformed`, IndexError at the end."""
    byte = buffer[position]
    position += 1
    if byte < 128:
        return byte, position
    value = byte & 127
    shift = 7
    while True:
        byte = buffer[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > MAX_VARINT_BITS:
            raise Malformed(f"a varint at byte {position} does not end")


def signed(value: int) -> int:
    """Return what a 64-bit varint means for an int32 or int64 field."""
    return value - (1 << 64) if value >= 1 << 63 else value


def encode_varint(value: int) -> bytes:
    """Return `value` as a varint; negative numbers as the format's ten bytes."""
    if value < 0:
        value += 1 << 64
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_bytes(number: int, payload: bytes) -> bytes:
    """Return a length-delimited field."""
    return encode_varint(number << 3 | BYTES) + encode_varint(len(payload)) + payload


def encode_number(number: int, value: int) -> bytes:
    """Return a varint field."""
    return encode_varint(number << 3 | VARINT) + encode_varint(value)


def fields(buffer: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """Yield the fields of the message in `buffer[start:end]`, at positions in it. Raises `Malformed`."""
    end = len(buffer) if end is None else end
    position = start
    try:
        while position < end:
            tag, position = read_varint(buffer, position)
            kind, number = tag & 7, tag >> 3
            if kind == BYTES:
                length, position = read_varint(buffer, position)
                payload = position
                position += length
                if position > end:
                    raise Malformed(f"field {number} at byte {payload} claims {length} bytes, past its message")
                yield Field(number, 0, payload, position)
            elif kind == VARINT:
                value, position = read_varint(buffer, position)
                yield Field(number, value, 0, 0)
            else:
                payload = position
                position += fixed_size(kind, position)
                yield Field(number, 0, payload, position)
            if position > end:
                raise Malformed(f"field {number} ends at byte {position}, past its message")
    except IndexError:
        raise Malformed(f"the message ends inside a field at byte {position}") from None


def payloads(buffer: bytes, wanted: int, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield start and end of the length-delimited fields of number `wanted`: `fields`, but faster.

    Raises:
        Malformed: the buffer is not a message.
    """
    wanted_tag = wanted << 3 | BYTES
    position = start
    end = len(buffer) if end is None else end
    try:
        while position < end:
            tag = buffer[position]
            if tag & 7 != BYTES or tag > 127:
                field = next(fields(buffer, position, end))
                # Nobody writes a tag in more bytes than it needs, but to hide it. A number is another, unknown field.
                if field.number == wanted and tag & 7 == BYTES:
                    raise Malformed(f"field {wanted} at byte {position} has an odd tag")
                position = field.end or _after_number(buffer, position)
                continue
            size = buffer[position + 1]
            position += 2
            if size > 127:
                size, position = read_varint(buffer, position - 1)
            if tag == wanted_tag:
                yield position, position + size
            position += size
    except IndexError:
        raise Malformed(f"the message ends inside a field at byte {position}") from None
    if position != end:
        raise Malformed(f"a field ends at byte {position}, past its message of {end}")


def _after_number(buffer: bytes, position: int) -> int:
    _, position = read_varint(buffer, position)
    return read_varint(buffer, position)[1]


def fixed_size(kind: int, position: int) -> int:
    """Return the size of a field of fixed size. Raises `Malformed` for a wire type that does not exist."""
    if kind == FIXED32:
        return 4
    if kind == FIXED64:
        return 8
    raise Malformed(f"wire type {kind} at byte {position} does not exist")


def text(buffer: bytes, field: Field) -> str:
    """Return the payload of a string field. Raises `Malformed` where it is not UTF-8, which no protobuf reads."""
    return decoded(buffer[field.start : field.end])


def decoded(content: bytes) -> str:
    """Return the text of a string field's payload. Raises `Malformed` where it is not UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Malformed(f"a string is not UTF-8: {content[:40]!r}") from None


class BytesFile:
    """A `RandomAccess` over bytes in memory."""

    def __init__(self, content: bytes) -> None:
        """Wrap `content`."""
        self._content = content
        self.size_bytes = len(content)

    def pread(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`."""
        return self._content[offset : offset + length]

    def close(self) -> None:
        """Do nothing: nothing is held."""


class Window:
    """A file seen through a window that doubles while the reader goes on and starts small after a skip.

    Small skips stay inside one read, long ones save it: doubling from 16 KiB measured best for both a dense
    graph (few requests) and one of large constants (few bytes). What was read is kept up to `keep_bytes`, so
    that a second pass over a graph asks Cloud Storage for nothing.
    """

    def __init__(
        self,
        file: RandomAccess,
        *,
        first_bytes: int = 1 << 14,
        max_bytes: int = 1 << 20,
        keep_bytes: int = 0,
    ) -> None:
        """Look at `file`; nothing is read yet."""
        self._file = file
        self.size_bytes = file.size_bytes
        self._first_bytes = first_bytes
        self._max_bytes = max_bytes
        self._keep_bytes = keep_bytes
        self._offset = 0
        self._buffer = b""
        self._next_bytes = first_bytes
        self._kept_offsets: list[int] = []
        self._kept: list[bytes] = []

    def at(self, offset: int, length: int) -> tuple[bytes, int]:
        """Return a buffer and the index of `offset` in it; `length` bytes follow unless the file ends."""
        index = offset - self._offset
        available = len(self._buffer)
        if index >= 0 and (
            index + length <= available or (index <= available and self._offset + available == self.size_bytes)
        ):
            return self._buffer, index
        if self._recall(offset, length):
            return self._buffer, offset - self._offset
        self._read(offset, length)
        return self._buffer, offset - self._offset

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`. Raises `Malformed` where the file ends before."""
        buffer, index = self.at(start, end - start)
        if len(buffer) - index < end - start:
            raise Malformed(f"the file ends at byte {self.size_bytes}, {end} were announced")
        return buffer[index : index + end - start]

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Yield the fields of the message between two offsets of the file, without touching their payloads.

        Raises:
            Malformed: the bytes are not a message; the offset is said.
        """
        while start < end:
            field, start = self.field_at(start, end)
            yield field

    def field_at(self, offset: int, end: int) -> tuple[Field, int]:
        """Return the field at an offset of a message that ends at `end`, and the offset after it."""
        buffer, index = self.at(offset, LONGEST_FIELD_HEAD)
        begin = index
        try:
            tag, index = read_varint(buffer, index)
            kind, number = tag & 7, tag >> 3
            if not number:
                raise Malformed(f"field number 0 at byte {offset}")
            if kind == VARINT:
                value, index = read_varint(buffer, index)
                after = offset + index - begin
                field = Field(number, value, 0, 0)
            else:
                if kind == BYTES:
                    length, index = read_varint(buffer, index)
                else:
                    length = fixed_size(kind, offset)
                payload = offset + index - begin
                after = payload + length
                field = Field(number, 0, payload, after)
        except IndexError:
            raise Malformed(f"the file ends inside a field at byte {offset}") from None
        if after > end:
            raise Malformed(f"field {number} claims bytes up to {after}, its message ends at {end}")
        return field, after

    def _recall(self, offset: int, length: int) -> bool:
        """Make a kept read the window if it holds what is asked for."""
        at = bisect_right(self._kept_offsets, offset) - 1
        if at < 0:
            return False
        kept_offset, kept = self._kept_offsets[at], self._kept[at]
        end = kept_offset + len(kept)
        if (offset + length > end and end != self.size_bytes) or offset > end:
            return False
        self._offset, self._buffer = kept_offset, kept
        return True

    def _read(self, offset: int, length: int) -> None:
        """Read a window that starts at `offset`, keeping the part of the present one that overlaps."""
        end = self._offset + len(self._buffer)
        reading_on = bool(self._buffer) and self._offset <= offset <= end + self._first_bytes
        self._next_bytes = min(self._max_bytes, self._next_bytes * 2) if reading_on else self._first_bytes
        overlap = self._buffer[offset - self._offset :] if self._offset <= offset < end else b""
        begin = offset + len(overlap)
        wanted = min(max(self._next_bytes, length - len(overlap)), self.size_bytes - begin)
        self._buffer = overlap + (self._file.pread(begin, wanted) if wanted > 0 else b"")
        self._offset = offset
        self._keep()

    def _keep(self) -> None:
        if len(self._buffer) > self._keep_bytes:
            return
        self._keep_bytes -= len(self._buffer)
        at = bisect_right(self._kept_offsets, self._offset)
        self._kept_offsets.insert(at, self._offset)
        self._kept.insert(at, self._buffer)
