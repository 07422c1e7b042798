"""The serving signature of a Keras model: named, typed inputs and readable outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servegraph.errors import ExportRefused

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


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


def _named(model: keras.Model, outputs: Any) -> dict[str, Any]:
    import tensorflow as tf

    if isinstance(outputs, dict):
        return {str(name): value for name, value in outputs.items()}
    tensors = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    names = list(getattr(model, "output_names", [])) or [f"output_{i}" for i in range(len(tensors))]
    if len(tensors) == 1 and tensors[0].shape.rank == 2 and tensors[0].shape[1] == 1:
        return {"values": tf.squeeze(tensors[0], axis=1)}
    return dict(zip(names, tensors, strict=True))
