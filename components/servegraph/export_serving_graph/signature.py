"""The serving signature of a Keras model: named, typed inputs and readable outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servegraph.data.schema import Schema
from servegraph.errors import ExportRefused, InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from servegraph.serving_inputs.formats import Format


def taken_inputs(model: keras.Model, schema: Schema | None) -> Any:
    """Return what the model takes, as symbolic tensors in the dicts and lists that it takes them in.

    A subclassed model does not say it once it was saved: it takes the features of the schema, as the trainer's contract
    has it, else what it was built for, of which Keras keeps the shapes.

    Raises:
        ExportRefused: it is not known (code `NO_INPUTS`).
    """
    import keras

    from servegraph.trained.inputs import symbolic_inputs

    inputs = symbolic_inputs(model)
    if inputs is not None:
        return inputs
    if schema is not None:
        names = [(column.input_name, column.dtype) for column in schema.features]
        return {name: keras.KerasTensor((None,), dtype, name=name) for name, dtype in names}
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    if len(shapes) != 1 or not shapes[0]:
        raise ExportRefused(
            f"The model {model.name!r} does not say what its inputs are.",
            code="NO_INPUTS",
            fix="Give --schema, whose features it then takes, or save keras.Model(x, model(x)) for x = keras.Input(…).",
        )
    return keras.tree.map_shape_structure(
        lambda shape: keras.KerasTensor(shape, model.input_dtype, name="input"), shapes[0]
    )


def input_specs(inputs: Any) -> dict[str, tf.TensorSpec]:
    """Return {input name: TensorSpec} with a free batch dimension.

    A size that a model was built with, such as that of a training batch, need not be one that it cannot do without:
    the trace and the proof tell.

    Raises:
        ExportRefused: an input has no dimensions (code `FIXED_BATCH`).
    """
    import keras
    import tensorflow as tf

    from servegraph.trained.inputs import input_names

    tensors = dict(zip(input_names(inputs), keras.tree.flatten(inputs), strict=True))
    scalars = [name for name, tensor in tensors.items() if not tensor.shape]
    if scalars:
        raise ExportRefused(
            f"The inputs {scalars} have no batch dimension.",
            code="FIXED_BATCH",
            fix="Let every input have the records of a request along its first dimension.",
        )
    return {name: tf.TensorSpec((None, *t.shape[1:]), t.dtype, name=name) for name, t in tensors.items()}


def serving_function(
    model: keras.Model, inputs: Any, classes: tuple[str, ...]
) -> tf.types.experimental.PolymorphicFunction:
    """Return a tf.function from {input name: tensor} to the named outputs; `inputs` are those of `taken_inputs`.

    With `classes`: `probabilities` float32 [batch, classes] and `classes` string [batch], the most probable label.
    Without: the model's own outputs by name; a single output of shape [batch, 1] becomes `values` [batch].

    Raises:
        ExportRefused: when called, of outputs that are no probabilities of the classes (code `NO_PROBABILITIES`).
    """
    import tensorflow as tf

    from servegraph.trained.inputs import arrange

    @tf.function(input_signature=[input_specs(inputs)], autograph=False)  # type: ignore[untyped-decorator]
    def serve(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = model(arrange(inputs, features), training=False)
        if classes:
            probabilities = _probabilities(outputs, classes)
            best = tf.argmax(probabilities, axis=-1)
            return {"probabilities": probabilities, "classes": tf.gather(tf.constant(list(classes)), best)}
        return _named(model, outputs)

    return serve


def no_probabilities(classes: tuple[str, ...], found: str) -> ExportRefused:
    """Return the refusal of a model that answers something else than what its schema says."""
    return ExportRefused(
        f"The schema names {len(classes)} classes, and the model answers {found}, no probability for each of them.",
        code="NO_PROBABILITIES",
        fix="End it with softmax over the classes (one sigmoid for two), or give the schema that it was trained with.",
    )


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


def _probabilities(outputs: Any, classes: tuple[str, ...]) -> tf.Tensor:
    import keras
    import tensorflow as tf

    tensors = keras.tree.flatten(outputs)
    if len(tensors) != 1:
        raise no_probabilities(classes, f"{len(tensors)} outputs")
    (tensor,) = tensors
    widths = (len(classes), 1) if len(classes) == 2 else (len(classes),)  # yes or no: one says both
    if tensor.shape.rank != 2 or tensor.shape[1] not in widths:
        raise no_probabilities(classes, f"the shape {tensor.shape}")
    probabilities = tf.cast(tensor, tf.float32)
    return probabilities if tensor.shape[1] != 1 else tf.concat([1 - probabilities, probabilities], axis=-1)


def _named(model: keras.Model, outputs: Any) -> dict[str, tf.Tensor]:
    import keras
    import tensorflow as tf

    from servegraph.trained.inputs import leaf_names

    tensors = keras.tree.flatten(outputs)
    own = _own_names(model) or [f"output_{i}" for i in range(len(tensors))]
    if len(tensors) == 1 and not isinstance(outputs, dict) and tensors[0].shape.rank == 2 and tensors[0].shape[1] == 1:
        return {"values": tf.squeeze(tensors[0], axis=1)}
    return dict(zip(leaf_names(outputs, own), tensors, strict=True))


def _own_names(model: keras.Model) -> list[str]:
    """Return how the model calls its outputs, none where it does not.

    What an embedding answers in reverse, as at the end of a language model, are no embeddings: it is called `logits`.
    """
    import keras

    names = list(getattr(model, "output_names", []))
    tensors = keras.tree.flatten(model.outputs) if names else []
    return ["logits" if _is_reversed(tensor) else name for name, tensor in zip(names, tensors, strict=True)]


def _is_reversed(tensor: keras.KerasTensor) -> bool:
    import keras

    operation, node_index, _ = tensor._keras_history
    is_embedding = isinstance(operation, keras.layers.Embedding)
    return is_embedding and bool(operation._inbound_nodes[node_index].arguments.kwargs.get("reverse"))
