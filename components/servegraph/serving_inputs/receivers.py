"""`serving_input_fn` for an Estimator, from a schema; runs under TensorFlow 2.15 and earlier, which have Estimators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf

from servegraph.data import schema_file
from servegraph.data.schema import Schema
from servegraph.serving_inputs.formats import Format, features, inputs, parse_formats

v1 = tf.compat.v1


def serving_input_fn(
    schema: Schema | str | Path, formats: Iterable[str] = ("json",), *, strip_text: bool = False
) -> Callable[[], Any]:
    """Return a function of no arguments that `Estimator.export_saved_model` takes.

    `schema` is a schema or the path of a schema file. The first format is the receiver; each further one becomes
    signatures of its own, called `FORMAT:predict` by TensorFlow. Give `strip_text` where the model was trained on
    stripped text.

    Raises:
        InputError, SchemaError: the schema or a format is not known.
    """
    if not isinstance(schema, Schema):
        schema = schema_file.parse(Path(schema).read_text(encoding="utf-8"), str(schema))
    chosen, known = parse_formats(formats), schema

    def receive() -> Any:
        return _one(known, chosen[0], strip_text) if len(chosen) == 1 else _several(known, chosen, strip_text)

    return receive


def _one(schema: Schema, which: Format, strip_text: bool) -> Any:
    placeholders = {
        name: v1.placeholder(spec.dtype, spec.shape, name=name) for name, spec in inputs(schema, which).items()
    }
    return tf.estimator.export.ServingInputReceiver(
        features(schema, which, placeholders, strip_text=strip_text), placeholders
    )


def _several(schema: Schema, chosen: tuple[Format, ...], strip_text: bool) -> Any:
    """Join the rows of all formats: the ones that a request does not feed have no rows.

    One graph then answers in every format, with one copy of the model in it.
    """
    given, parsed = {}, []
    for which in chosen:
        given[which] = {
            name: v1.placeholder_with_default(tf.constant([], spec.dtype), spec.shape, name=name)
            for name, spec in inputs(schema, which).items()
        }
        parsed.append(features(schema, which, given[which], strip_text=strip_text))
    joined = {name: tf.concat([values[name] for values in parsed], axis=0) for name in parsed[0]}
    rest = {which: given[which] for which in chosen[1:]}
    return tf.estimator.export.ServingInputReceiver(joined, given[chosen[0]], rest)
