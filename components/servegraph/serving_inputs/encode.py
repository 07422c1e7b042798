"""Records in the formats of `formats`: what a client sends, for proofs and warmup requests."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from servegraph.data.schema import Column, Schema
from servegraph.serving_inputs.formats import CSV_INPUT, EXAMPLE_INPUT, Format

Arrays = Mapping[str, NDArray[Any]]


def encode(records: Arrays, schema: Schema | None, which: Format) -> dict[str, NDArray[Any]]:
    """Return `records`, {serving input name: [batch, …]}, as a request in one format; JSON needs no schema."""
    if which == "json" or schema is None:
        return dict(records)
    rows = len(next(iter(records.values())))
    plain = {name: values.reshape(rows) for name, values in records.items()}
    write = _csv_row if which == "csv" else _example
    sent = np.empty(rows, dtype=object)
    sent[:] = [write({name: values[row] for name, values in plain.items()}, schema) for row in range(rows)]
    return {CSV_INPUT if which == "csv" else EXAMPLE_INPUT: sent}


def _csv_row(record: Mapping[str, Any], schema: Schema) -> bytes:
    """Columns that a record lacks, such as the label, are left empty."""
    cells = [_text(record.get(c.input_name, "")) if c in schema.features else "" for c in schema.columns]
    line = io.StringIO()
    csv.writer(line, delimiter=schema.delimiter, lineterminator="").writerow(cells)
    return line.getvalue().encode()


def _example(record: Mapping[str, Any], schema: Schema) -> bytes:
    feature = {
        column.name: _feature(record[column.input_name], column)
        for column in schema.features
        if column.input_name in record
    }
    message: bytes = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)
    return message


def _feature(value: Any, column: Column) -> Any:
    if column.dtype == "string":
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[_text(value).encode()]))
    if column.dtype == "int64":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=[float(value)]))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
