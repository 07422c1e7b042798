"""The formats of a request: what each one's input is called and what it is parsed into.

Text is passed on as it is sent, unless `strip_text`: a model that was trained on `" Male"` and is asked for `"Male"`
answers from its out-of-vocabulary path, with no error, so whether to strip is a matter of how it was trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast, get_args

import tensorflow as tf

from servegraph.data.schema import Column, Schema
from servegraph.data.text import MISSING
from servegraph.errors import InputError

Format = Literal["json", "csv", "example"]

CSV_INPUT = "csv_row"
EXAMPLE_INPUT = "example_proto"


def parse_formats(names: Iterable[str]) -> tuple[Format, ...]:
    """Return the formats that are named, in that order.

    Raises:
        InputError: none, one that does not exist, or one twice (code `UNKNOWN_FORMAT`).
    """
    found = tuple(names)
    if not found or set(found) - set(get_args(Format)) or len(set(found)) != len(found):
        raise InputError(
            f"The input formats {', '.join(found) or 'are empty'} are not known, or repeated.",
            code="UNKNOWN_FORMAT",
            fix=f"Name one or more of {', '.join(get_args(Format))}; the first is the default signature.",
        )
    return cast("tuple[Format, ...]", found)


def json_inputs(schema: Schema) -> dict[str, tf.TensorSpec]:
    """Return one input [batch] per feature, by its serving name."""
    return {c.input_name: tf.TensorSpec([None], c.dtype, name=c.input_name) for c in schema.features}


def inputs(schema: Schema, which: Format) -> dict[str, tf.TensorSpec]:
    """Return the inputs of a request in one format."""
    if which == "json":
        return json_inputs(schema)
    name = CSV_INPUT if which == "csv" else EXAMPLE_INPUT
    return {name: tf.TensorSpec([None], tf.string, name=name)}


def features(
    schema: Schema, which: Format, given: Mapping[str, Any], *, strip_text: bool = False
) -> dict[str, tf.Tensor]:
    """Return the features [batch] by serving name, from a request's tensors in one format."""
    if which == "json":
        found = {column.input_name: given[column.input_name] for column in schema.features}
    else:
        (tensor,) = given.values()
        found = from_csv(tensor, schema) if which == "csv" else from_examples(tensor, schema)
    if not strip_text:
        return found
    return {name: tf.strings.strip(values) if values.dtype == tf.string else values for name, values in found.items()}


def from_csv(rows: tf.Tensor, schema: Schema) -> dict[str, tf.Tensor]:
    """Parse rows of CSV [batch]: all columns of the schema in the order of the file, the label too.

    An empty cell gets the column's default, else 0 or the empty text; so does a word for a missing number. Cells are
    read as text first, because `decode_csv` takes a blank for a number that cannot be read.
    """
    cells = tf.io.decode_csv(rows, [[""]] * len(schema.columns), field_delim=schema.delimiter)
    by_name = dict(zip((column.name for column in schema.columns), cells, strict=True))
    return {column.input_name: _from_text(by_name[column.name], column) for column in schema.features}


def from_examples(serialized: tf.Tensor, schema: Schema) -> dict[str, tf.Tensor]:
    """Parse serialized tf.Examples [batch] that name the columns as the schema does.

    A feature that is missing gets the column's default; without one the request is refused.
    """
    wanted = {
        column.name: tf.io.FixedLenFeature([], column.dtype, default_value=_default(column))
        for column in schema.features
    }
    parsed = tf.io.parse_example(serialized, wanted)
    return {column.input_name: parsed[column.name] for column in schema.features}


def _from_text(cells: tf.Tensor, column: Column) -> tf.Tensor:
    text = tf.strings.strip(cells)
    default = _default(column)
    if default is None:
        default = "" if column.dtype == "string" else 0
    if column.dtype == "string":
        return tf.where(tf.equal(text, ""), tf.constant(str(default)), cells)
    absent = tf.reduce_any(tf.equal(tf.strings.lower(text)[:, None], tf.constant(MISSING)), axis=1)
    return tf.strings.to_number(tf.where(absent, tf.constant(str(default)), text), column.dtype)


def _default(column: Column) -> Any:
    return int(column.default) if column.dtype == "int64" and column.default is not None else column.default
