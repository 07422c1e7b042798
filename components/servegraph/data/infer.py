"""Infer a schema from the data itself, to be written out and edited."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from servegraph import storage
from servegraph.data import csv_file, tfrecord_file
from servegraph.data import schema as schemas
from servegraph.data.header import column_names, has_header, places
from servegraph.data.schema import Column, Schema
from servegraph.data.table import class_order
from servegraph.data.text import is_number, strip
from servegraph.errors import DataError
from servegraph.storage import FileRef

SAMPLE_ROWS = 200_000
LARGEST_VOCABULARY = 1_000  # above it a category is hashed
LARGEST_CLASS_COUNT = 100  # above it a whole-number label is taken as a measurement
DELIMITER_ROWS = 50
IDENTIFIER_ROWS = 100  # from here on a text column without any repetition is taken as an identifier


def infer(uri: str, label: str | None = None) -> Schema:
    """Return a schema for the files that `uri` names, from their first `SAMPLE_ROWS` records.

    Numbers become float32; text becomes a category with a vocabulary of its size, or hash buckets where there are
    many values; a text column that never repeats is ignored. The label is the last column unless named.

    Raises:
        DataError: no rows (`EMPTY_DATA`), the label is not a column (`MISSING_COLUMN`), nothing else is.
    """
    file = storage.match(uri)[0]
    names, rows, header, delimiter = _sample(file)
    csv_file.refuse_repeated(names, file)
    columns = dict(zip(names, zip(*rows, strict=False), strict=False)) if rows else {}
    if not columns:
        raise DataError(f"{file.uri} has no rows.", code="EMPTY_DATA", fix="Give a file with records.")
    label = label or names[-1]
    if label not in columns:
        raise DataError(
            f"{file.uri} has no column {label!r}; its columns are {names}.",
            code="MISSING_COLUMN",
            fix="Name one of its columns with --label.",
        )
    schema = Schema(
        columns=tuple(
            _label(name, values) if name == label else _feature(name, values) for name, values in columns.items()
        ),
        label=label,
        header=header,
        delimiter=delimiter,
    )
    schemas.check(schema, f"inferred from {file.uri}")
    return schema


def _sample(file: FileRef) -> tuple[list[str], list[Sequence[Any]], bool, str]:
    """Return column names, rows, whether the file has a header, and the delimiter."""
    if tfrecord_file.is_tfrecord(file):
        found = list(itertools.islice(tfrecord_file.examples(file), SAMPLE_ROWS))
        names = sorted({name for example in found for name in example})
        rows: list[Sequence[Any]] = [[_single(example.get(name, [])) for name in names] for example in found]
        return names, rows, True, ","
    delimiter = _delimiter(file)
    rows = list(itertools.islice(csv_file.records(file, delimiter), SAMPLE_ROWS))
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise DataError(
                f"Row {number} of {file.uri} has {len(row)} cells where the first has {len(rows[0])}.",
                code="BAD_ROW",
                fix="Mend the file: one record a line, with the same cells in each.",
            )
    header = has_header(rows)
    first = rows[0] if rows else []
    names = column_names(first) if header else places(len(first))
    return names, rows[1:] if header else rows, header, delimiter


def _delimiter(file: FileRef) -> str:
    """Return the delimiter that cuts the first lines into equally many cells, and into most."""

    def cells(delimiter: str) -> int:
        counts = {len(row) for row in itertools.islice(csv_file.records(file, delimiter), DELIMITER_ROWS)}
        return counts.pop() if len(counts) == 1 else 1

    return max(",;\t|", key=cells)


def _single(values: list[Any]) -> Any:
    value = values[0] if len(values) == 1 else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _filled(values: Sequence[Any]) -> list[Any]:
    stripped = (strip(value) if isinstance(value, str) else value for value in values)
    return [value for value in stripped if value != ""]


def _feature(name: str, values: Sequence[Any]) -> Column:
    filled = _filled(values)
    if filled and all(is_number(value) for value in filled):
        middle = sorted(float(value) for value in filled)[len(filled) // 2]
        return Column(name, "float32", default=middle if len(filled) < len(values) else None)
    distinct = len({str(value) for value in filled})
    if distinct == len(values) >= IDENTIFIER_ROWS:
        return Column(name, "string", role="ignore")
    if distinct > LARGEST_VOCABULARY:
        return Column(name, "string", hash_buckets=1 << (distinct - 1).bit_length())
    return Column(name, "string", vocabulary_size=max(distinct, 1))


def _label(name: str, values: Sequence[Any]) -> Column:
    filled = _filled(values)
    distinct = {str(value) for value in filled}
    numbers = all(is_number(value) for value in filled)
    whole = numbers and all(float(value).is_integer() for value in filled)
    if not numbers and len(distinct) > LARGEST_CLASS_COUNT:
        raise DataError(
            f"The label column {name!r} has {len(distinct)} different texts, too many to be classes.",
            code="TOO_MANY_CLASSES",
            fix="Name the label's column with --label, or list its `classes` in a schema.",
        )
    if numbers and (not whole or len(distinct) > LARGEST_CLASS_COUNT):
        return Column(name, "float32")
    return Column(name, "int64" if whole else "string", classes=tuple(sorted(distinct, key=class_order)))
