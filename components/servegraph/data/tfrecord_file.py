"""TFRecord files of tf.Example protos.

Framing (tensorflow/core/lib/io/record_writer.h): uint64 length, uint32 masked CRC-32C of the length, the data,
uint32 masked CRC-32C of the data; all little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import google_crc32c

from servegraph.data.csv_file import CHUNK_ROWS, Chunk
from servegraph.data.schema import Schema
from servegraph.data.text import listed
from servegraph.errors import DataError
from servegraph.savedmodel.sstable import mask
from servegraph.storage import FileRef

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_EMPTY = ""  # what a CSV file has where a value is missing


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


def chunks(file: FileRef, schema: Schema) -> Iterator[Chunk]:
    """Yield the columns that the schema uses, in chunks of at most `CHUNK_ROWS` records.

    A feature that is missing is an empty cell where its column has a default.

    Raises:
        DataError: no tf.Example (`BAD_ROW`), a feature is missing or has not one value (`MISSING_COLUMN`).
    """
    wanted = {column.name: column.default for column in (*schema.features, schema.label_column)}
    first_row = 1
    cells: dict[str, list[Any]] = {name: [] for name in wanted}
    for number, example in enumerate(examples(file), start=1):
        for name, default in wanted.items():
            values = example.get(name, []) or ([] if default is None else [_EMPTY])
            if len(values) != 1:
                raise DataError(
                    f"Feature {name!r} has {len(values)} values in record {number} of {file.uri}, not one; "
                    f"its features are {listed(sorted(example))}.",
                    code="MISSING_COLUMN",
                    fix="Write one value per feature, a vector as several; or give the column a `default` in the "
                    "schema if it may be missing, or take it out.",
                )
            cells[name].append(values[0])
        if number - first_row + 1 == CHUNK_ROWS:
            yield Chunk(first_row, CHUNK_ROWS, cells)
            first_row, cells = number + 1, {name: [] for name in wanted}
    if rest := len(cells[schema.label]):
        yield Chunk(first_row, rest, cells)


def examples(file: FileRef) -> Iterator[dict[str, list[Any]]]:
    """Yield each tf.Example as {feature: values}; raises `DataError` where a record is none."""
    from tensorflow.core.example import example_pb2

    for number, record in enumerate(records(file), start=1):
        example = example_pb2.Example()
        try:
            example.ParseFromString(record)
        except Exception as exc:  # protobuf's DecodeError; its class differs between protobuf implementations
            raise DataError(
                f"Record {number} of {file.uri} is not a tf.Example: {exc}.",
                code="BAD_ROW",
                fix="Write each record as tf.train.Example(…).SerializeToString().",
            ) from exc
        yield {
            name: list(getattr(feature, feature.WhichOneof("kind") or "bytes_list").value)
            for name, feature in example.features.feature.items()
        }


def _record(stream: BinaryIO, head: bytes, what: str) -> bytes:
    if len(head) == _HEADER.size and _HEADER.unpack(head)[1] == _masked_crc(head[:8]):
        length = _HEADER.unpack(head)[0]
        data, tail = stream.read(length), stream.read(_CHECKSUM.size)
        if len(data) == length and len(tail) == _CHECKSUM.size:
            if _CHECKSUM.unpack(tail)[0] == _masked_crc(data):
                return data
            raise DataError(f"{what} has a wrong checksum.", code="BAD_ROW", fix="Write the file again.")
    raise DataError(f"{what} is cut off or damaged.", code="BAD_ROW", fix="Write the file again.")


def _masked_crc(data: bytes) -> int:
    return mask(google_crc32c.value(data))
