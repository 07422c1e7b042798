"""TFRecord files: records one after the other, with checksums. Warmup requests are in one, and data may be.

Framing (tensorflow/core/lib/io/record_writer.h): uint64 length, uint32 masked CRC-32C of the length, the data,
uint32 masked CRC-32C of the data; all little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from servegraph.errors import DataError
from servegraph.savedmodel.sstable import mask
from servegraph.storage import FileRef

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_PIECE_BYTES = 1 << 20


def is_tfrecord(head: bytes) -> bool:
    """Whether the first bytes of a file begin with a valid TFRecord header."""
    return len(head) >= _HEADER.size and _HEADER.unpack_from(head)[1] == _masked_crc(head[:8])


def records(file: FileRef) -> Iterator[bytes]:
    """Yield the records of the file, checksums verified.

    Raises:
        DataError: the file is truncated or a checksum does not match (code `BAD_ROW`).
    """
    with file.open_binary() as stream:
        number = 0
        while head := stream.read(_HEADER.size):
            number += 1
            yield _record(stream, head, f"Record {number} of {file.uri}")


def framed(record: bytes) -> bytes:
    """Return a record as it stands in a file."""
    length = struct.pack("<Q", len(record))
    return b"".join([_HEADER.pack(len(record), _masked_crc(length)), record, _CHECKSUM.pack(_masked_crc(record))])


def _record(stream: BinaryIO, head: bytes, what: str) -> bytes:
    if len(head) == _HEADER.size and _HEADER.unpack(head)[1] == _masked_crc(head[:8]):
        length = _HEADER.unpack(head)[0]
        data, tail = _read(stream, length), stream.read(_CHECKSUM.size)
        if len(data) == length and len(tail) == _CHECKSUM.size:
            if _CHECKSUM.unpack(tail)[0] == _masked_crc(data):
                return data
            raise DataError(f"{what} has a wrong checksum.", code="BAD_ROW", fix="Write the file again.")
    raise DataError(f"{what} is cut off or damaged.", code="BAD_ROW", fix="Write the file again.")


def _read(stream: BinaryIO, length: int) -> bytes:
    """Read piece by piece: the length is a number in the file, and takes no memory before there are as many bytes."""
    pieces = []
    while length and (piece := stream.read(min(length, _PIECE_BYTES))):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _masked_crc(data: bytes) -> int:
    return mask(google_crc32c.value(data))
