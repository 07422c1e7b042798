"""TFRecord files of tf.Example protos, by column."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from servegraph.data.csv_file import CHUNK_ROWS, Chunk
from servegraph.data.schema import Schema
from servegraph.data.text import listed
from servegraph.errors import DataError
from servegraph.quiet_tensorflow import import_tensorflow_quietly
from servegraph.savedmodel.tfrecord import records
from servegraph.storage import FileRef

_EMPTY = ""  # what a CSV file has where a value is missing


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
    if "tensorflow" not in sys.modules:  # where it is, its log is somebody else's to set
        import_tensorflow_quietly()
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
