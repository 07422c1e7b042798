"""A table in memory: one array per feature and one of labels, read from CSV or TFRecord files by a schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegraph import storage
from servegraph.data import csv_file, tfrecord_file
from servegraph.data.csv_file import Chunk
from servegraph.data.formats import look
from servegraph.data.record_keys import record_keys
from servegraph.data.schema import Column, Schema
from servegraph.data.text import is_missing, listed, quoted, strip
from servegraph.errors import DataError
from servegraph.storage import FileRef

if TYPE_CHECKING:
    import tensorflow as tf

_NO_LABEL = "Leave records without a label out."
Cells = Sequence[Any]  # one column of one file, as the file holds it: text, or the numbers of a tf.Example


@dataclass(frozen=True)
class Table:
    """Records as arrays of shape [rows]: `features` by serving input name, `labels`, and the `keys` of the records.

    A feature is float32, int64 or object (str, as the data writes it). `labels` are int64 indices into `classes`,
    or float32 values where `classes` is empty. `keys` are those of `record_keys` over the features.
    """

    schema: Schema
    features: dict[str, NDArray[Any]]
    labels: NDArray[Any]
    classes: tuple[str, ...]
    keys: NDArray[np.uint32]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    def take(self, rows: NDArray[Any]) -> Table:
        """Return the table of the given row numbers (or boolean mask), in that order."""
        picked = {name: values[rows] for name, values in self.features.items()}
        return Table(self.schema, picked, self.labels[rows], self.classes, self.keys[rows])

    def instances(self) -> Iterator[dict[str, Any]]:
        """Yield each record as a JSON object: the features by input name, and the label under its own name.

        A float32 is the shortest number that reads back as it: 40.6 where the data has 40.6.
        """
        from servegraph.answers.json_values import to_json

        names = list(self.features)
        columns = [to_json(values) for values in self.features.values()]
        labels = self.label_values() if self.classes else to_json(self.labels)
        for *values, label in zip(*columns, labels, strict=True):
            yield {**dict(zip(names, values, strict=True)), self.schema.label: label}

    def label_values(self) -> list[Any]:
        """Return the labels as the data has them: the text of each class, or the numbers."""
        return [self.classes[i] for i in self.labels] if self.classes else self.labels.tolist()

    def dataset(self, batch_size: int, *, shuffle_seed: int | None = None) -> tf.data.Dataset:
        """Return batches of (features {name: [batch]}, labels [batch]), shuffled whole where a seed is given."""
        import tensorflow as tf

        rows = np.arange(len(self))
        if shuffle_seed is not None:
            np.random.default_rng(shuffle_seed).shuffle(rows)
        features = {name: tf.constant(values[rows]) for name, values in self.features.items()}
        dataset = tf.data.Dataset.from_tensor_slices((features, self.labels[rows]))
        return dataset.batch(batch_size).prefetch(2)


def read(uri: str, schema: Schema, *, classes: tuple[str, ...] | None = None) -> Table:
    """Read the CSV or TFRecord files that `uri` (a file, a glob, a directory, gs://) names.

    The classes are those given, else those of the schema, else the distinct labels in sorted order.

    Raises:
        DataError: `EMPTY_DATA`, `MISSING_COLUMN`, `NOT_A_NUMBER`, `MISSING_VALUE`, `UNKNOWN_LABEL`, `BAD_ROW`,
            `WRONG_FORMAT`.
        StorageError: nothing is there, or it cannot be read.
    """
    columns = (*schema.features, schema.label_column)
    parts: dict[str, list[NDArray[Any]]] = {column.name: [] for column in columns}
    keys: list[NDArray[np.uint32]] = []
    where: list[_Part] = []
    for file, chunk in chunks(uri, schema):
        part = _Part(file.uri, chunk.first_row, chunk.rows)
        for column in columns:
            parts[column.name].append(_convert(chunk.cells[column.name], column, part, schema))
        keys.append(record_keys({column.name: chunk.cells[column.name] for column in schema.features}))
        where.append(part)
    if not sum(part.rows for part in where):
        raise DataError(f"The data {uri!r} has no rows.", code="EMPTY_DATA", fix="Give files with records.")
    raw_labels = np.concatenate(parts[schema.label])
    joined = {column.input_name: np.concatenate(parts[column.name]) for column in schema.features}
    if not schema.is_classification:
        return Table(schema, joined, raw_labels, (), np.concatenate(keys))
    labels, classes = _encode_labels(raw_labels, classes or schema.label_column.classes, where)
    return Table(schema, joined, labels, classes, np.concatenate(keys))


def chunks(uri: str, schema: Schema) -> Iterator[tuple[FileRef, Chunk]]:
    """Yield the files that `uri` names in parts, cells as they stand there. Raises as `read` for what is no table."""
    for file, form in map(look, storage.match(uri)):
        reader = tfrecord_file if form == "tfrecord" else csv_file
        for chunk in reader.chunks(file, schema):
            yield file, chunk


def split(table: Table, every: int = 5) -> tuple[Table, Table]:
    """Return (training, evaluation) parts: a record is held out when its key is 0 modulo `every`.

    So the split is fixed: it depends on nothing but the cells of the record's own features (see `record_keys`), and
    records of equal features are always on one side, whatever their labels are: were they split by those, a model would
    be trained on the one answer and asked for the other, where few combinations come again and again. A model trained
    before was not trained on what is held out now, unless the record is another.

    Raises:
        DataError: one of the parts would be empty (code `TOO_FEW_ROWS`).
    """
    held_out = table.keys % every == 0
    if held_out.all() or not held_out.any():
        raise DataError(
            f"{len(table)} rows with {len(np.unique(table.keys))} different records, labels aside, are too few to "
            "hold some out for evaluation; equal records are kept together.",
            code="TOO_FEW_ROWS",
            fix="Give more data, or evaluation data of its own.",
        )
    return table.take(~held_out), table.take(held_out)


@dataclass(frozen=True)
class _Part:
    """Rows of one file that stand together; `first_row` counts as the file's reader does, from 1."""

    uri: str
    first_row: int
    rows: int

    def locate(self, index: int) -> str:
        return f"row {self.first_row + index} of {self.uri}"


def _convert(cells: Cells, column: Column, part: _Part, schema: Schema) -> NDArray[Any]:
    """Return the cells as an array of the column's dtype, or say which cell is wrong."""
    is_class = column.name == schema.label and schema.is_classification
    if column.default is not None and not is_class:
        is_absent = _is_empty if column.dtype == "string" else is_missing
        cells = [column.default if is_absent(cell) else cell for cell in cells]
    if column.dtype == "string" or is_class:
        return np.array([_text(cell) for cell in cells], dtype=object)
    dtype = np.float32 if column.dtype == "float32" else np.int64
    try:
        with np.errstate(over="ignore"):  # infinity is refused below
            values = np.array(cells, dtype=dtype)
        if np.isfinite(values).all() and values.ndim == 1:
            return values
    except (ValueError, TypeError, OverflowError):
        pass
    raise _bad_cell(cells, column, part, is_label=column.name == schema.label)


def _bad_cell(cells: Cells, column: Column, part: _Part, *, is_label: bool) -> DataError:
    """Find the first cell that is no finite number of the column's dtype."""
    kind = "number" if column.dtype == "float32" else "whole number"
    for index, cell in enumerate(cells):
        spot = f"Column {column.name!r} in {part.locate(index)}"
        if is_missing(cell):
            return DataError(
                f"{spot} is empty." if _is_empty(cell) else f"{spot} is {quoted(cell)}, which says that there is none.",
                code="MISSING_VALUE",
                fix=_NO_LABEL if is_label else f"Give the column a `default` in the schema, or fill the {kind} in.",
            )
        try:
            number = float(cell) if column.dtype == "float32" else float(int(cell))
            finite = abs(number) <= float(np.finfo(np.float32).max) or (column.dtype == "int64" and abs(number) < 2**63)
        except (ValueError, TypeError, OverflowError):
            finite = False
        if not finite:
            return DataError(
                f"{spot} is {quoted(cell)}, not a finite {kind}.",
                code="NOT_A_NUMBER",
                fix="Mend the value, or make the column a string in the schema.",
            )
    return DataError(
        f"Column {column.name!r} of {part.uri} cannot be read as {column.dtype}.",
        code="NOT_A_NUMBER",
        fix="Mend its values, or make the column a string in the schema.",
    )


def _is_empty(cell: Any) -> bool:
    return isinstance(cell, str) and not strip(cell)


def _text(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    return cell if isinstance(cell, str) else str(cell)


def _encode_labels(
    labels: NDArray[Any], classes: tuple[str, ...] | None, where: list[_Part]
) -> tuple[NDArray[Any], tuple[str, ...]]:
    stripped = [strip(label) for label in labels]
    if "" in stripped and "" not in (classes or ()):
        raise DataError(
            f"The label in {_locate(stripped.index(''), where)} is empty.",
            code="MISSING_VALUE",
            fix=_NO_LABEL,
        )
    if classes is None:
        classes = tuple(sorted(set(stripped), key=class_order))
    if len(classes) < 2:
        raise DataError(
            f"The label has only the values {listed(classes)}.",
            code="ONE_CLASS",
            fix="Classification needs at least two classes in the data or in the schema.",
        )
    ids = {name: index for index, name in enumerate(classes)}
    try:
        return np.array([ids[label] for label in stripped], np.int64), classes
    except KeyError as exc:
        spot = _locate(stripped.index(exc.args[0]), where)
        raise DataError(
            f"The label in {spot} is {quoted(exc.args[0])}, which is not among the classes {listed(classes)}.",
            code="UNKNOWN_LABEL",
            fix="Mend the record, or add the class to `classes` of the label's column in the schema.",
        ) from exc


def _locate(index: int, where: list[_Part]) -> str:
    """Say where the row `index` of the whole table stands."""
    for part in where:
        if index < part.rows:
            return part.locate(index)
        index -= part.rows
    raise IndexError(index)


def class_order(label: str) -> tuple[float, str]:
    """Sort numbers by value and before text, so that classes '2' and '10' stand in counting order."""
    try:
        return (float(label), label)
    except ValueError:
        return (float("inf"), label)
