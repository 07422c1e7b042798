"""The serving signature of a Keras model: named, typed inputs and readable outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servegraph.data.schema import Schema
from servegraph.errors import ExportRefused, InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from servegraph.serving_inputs.formats import Format


def input_specs(model: keras.Model) -> dict[str, tf.TensorSpec]:
    """Return {input name: TensorSpec with a free batch dimension} of a built Keras model.

    Raises:
        ExportRefused: the inputs are not known (`NO_INPUTS`) or a batch dimension is fixed (`FIXED_BATCH`, R7).
    """
    import tensorflow as tf

    from servegraph.trained.inputs import symbolic_inputs

    tensors = symbolic_inputs(model)
    if not tensors:
        raise ExportRefused(
            f"The model {model.name!r} does not say what its inputs are.",
            code="NO_INPUTS",
            fix="Build it with keras.Input, or call it once on symbolic inputs before saving.",
        )
    fixed = [tensor.name for tensor in tensors if not tensor.shape or tensor.shape[0] is not None]
    if fixed:
        raise ExportRefused(
            f"The inputs {fixed} of the model {model.name!r} have a fixed batch dimension.",
            code="FIXED_BATCH",
            fix="Leave the batch out: keras.Input(shape=…) without batch_size.",
        )
    return {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in tensors}


def serving_function(model: keras.Model, classes: tuple[str, ...]) -> tf.types.experimental.PolymorphicFunction:
    """Return a tf.function from {input name: tensor} to the named outputs.

    With `classes`: `probabilities` float32 [batch, classes] and `classes` string [batch], the most probable label.
    Without: the model's own outputs by name; a single output of shape [batch, 1] becomes `values` [batch].
    """
    import tensorflow as tf

    from servegraph.trained.inputs import arrange

    specs = input_specs(model)

    @tf.function(input_signature=[specs], autograph=False)  # type: ignore[untyped-decorator]
    def serve(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = model(arrange(model, features), training=False)
        if classes:
            probabilities = tf.cast(outputs, tf.float32)
            if len(classes) == 2 and probabilities.shape[-1] == 1:
                probabilities = tf.concat([1 - probabilities, probabilities], axis=-1)
            best = tf.argmax(probabilities, axis=-1)
            return {"probabilities": probabilities, "classes": tf.gather(tf.constant(list(classes)), best)}
        return _named(model, outputs)

    return serve


def format_function(
    serve: tf.types.experimental.PolymorphicFunction, schema: Schema, which: Format
) -> tf.types.experimental.PolymorphicFunction:
    """Return a tf.function that answers requests in a format, parsed by the schema into what `serve` takes.

    Raises:
        InputError: the model has an input that is no feature of the schema (code `NOT_IN_SCHEMA`).
    """
    import tensorflow as tf

    from servegraph.serving_inputs.formats import features, inputs

    (specs,) = serve.input_signature
    strangers = sorted(set(specs) - {column.input_name for column in schema.features})
    if strangers:
        raise InputError(
            f"The model's inputs {strangers} are not features of the schema.",
            code="NOT_IN_SCHEMA",
            fix="Name the model's inputs as the schema names its columns.",
        )

    @tf.function(input_signature=[inputs(schema, which)], autograph=False)  # type: ignore[untyped-decorator]
    def answer(request: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        parsed = features(schema, which, request)
        shaped = {name: _shaped(tf.cast(parsed[name], spec.dtype), spec) for name, spec in specs.items()}
        return serve(shaped)  # type: ignore[no-any-return]

    return answer


def ranking(
    answer: tf.types.experimental.PolymorphicFunction, classes: tuple[str, ...]
) -> tf.types.experimental.PolymorphicFunction:
    """Return a tf.function with the inputs of `answer` that gives each class its score, as the method classify does.

    `classes` string [batch, classes] in the order of the schema, `scores` float32 [batch, classes].
    """
    import tensorflow as tf

    @tf.function(input_signature=answer.input_signature, autograph=False)  # type: ignore[untyped-decorator]
    def rank(request: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        scores = answer(request)["probabilities"]
        return {"classes": tf.tile(tf.constant([list(classes)]), [tf.shape(scores)[0], 1]), "scores": scores}

    return rank


def _shaped(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Give values of shape [batch] the rank that the model takes, such as [batch, 1]."""
    import tensorflow as tf

    return tf.reshape(values, [-1] + [1] * (spec.shape.rank - 1))


def _named(model: keras.Model, outputs: Any) -> dict[str, Any]:
    import tensorflow as tf

    if isinstance(outputs, dict):
        return {str(name): value for name, value in outputs.items()}
    tensors = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    names = list(getattr(model, "output_names", [])) or [f"output_{i}" for i in range(len(tensors))]
    if len(tensors) == 1 and tensors[0].shape.rank == 2 and tensors[0].shape[1] == 1:
        return {"values": tf.squeeze(tensors[0], axis=1)}
    return dict(zip(names, tensors, strict=True))
