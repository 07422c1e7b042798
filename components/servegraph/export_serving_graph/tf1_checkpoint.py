"""A TF1 checkpoint with its graph (`.meta`), made a SavedModel with the signature that the graph itself lacks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.meta_graph import read_meta_graph_file  # v1 has only one that also imports it

from servegraph.errors import InputError, ModelError
from servegraph.export_serving_graph.signature_choice import Wanted
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE, SERVING_TAG

v1 = tf.compat.v1
_SHOWN = 8
_PLACEHOLDERS = ("Placeholder", "PlaceholderWithDefault")
# An Estimator's training graph has no place that takes a request: its features come out of an input pipeline.
_PIPELINES = ("IteratorGetNext", "QueueDequeueManyV2", "QueueDequeueUpToV2", "ParseExample", "ParseExampleV2")


def save(prefix: str, path: Path, wanted: Wanted) -> None:
    """Write the graph of the checkpoint `prefix`, its variables, tables and their files as a SavedModel.

    Raises:
        InputError: the inputs and outputs are not named, or not there (code `WHICH_TENSORS`).
        ModelError: the graph or the checkpoint cannot be read (code `CANNOT_LOAD`).
    """
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        try:
            meta_graph = _with_constants(read_meta_graph_file(f"{prefix}.meta"), wanted.constants, prefix)
            saver = v1.train.import_meta_graph(meta_graph, clear_devices=True)
        except InputError:
            raise
        except (ValueError, KeyError, OSError, TypeError, tf.errors.OpError) as exc:
            raise _cannot_load(f"{prefix}.meta", exc) from exc
        inputs, outputs = _tensors(graph, wanted, prefix)
        if saver is not None:
            try:
                saver.restore(session, prefix)
            except (ValueError, tf.errors.OpError) as exc:
                raise _cannot_load(prefix, exc) from exc
        signature = v1.saved_model.build_signature_def(
            {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in inputs.items()},
            {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in outputs.items()},
            v1.saved_model.signature_constants.PREDICT_METHOD_NAME,
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            [SERVING_TAG],
            {next(iter(wanted.signatures), DEFAULT_SIGNATURE): signature},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
            saver=saver,
        )
        builder.save()


def _with_constants(meta_graph: Any, constants: Mapping[str, str], prefix: str) -> Any:
    """Put constants, written as JSON, in the place of placeholders that serving never feeds."""
    placeholders = {node.name: node for node in meta_graph.graph_def.node if node.op in _PLACEHOLDERS}
    for name, text in constants.items():
        node = placeholders.get(name.removesuffix(":0"))
        if node is None:
            raise InputError(
                f"The graph of {prefix} has no placeholder {name!r}.",
                code="WHICH_TENSORS",
                fix=f"Name one of {', '.join(sorted(placeholders)) or 'none: there are no placeholders'}.",
            )
        dtype = node.attr["dtype"].type
        try:
            value = tf.make_tensor_proto(json.loads(text), dtype)
        except (ValueError, TypeError) as exc:
            raise InputError(
                f"The value {text!r} of {name} is not {tf.as_dtype(dtype).name}.",
                code="BAD_OPTION",
                fix="Write it as JSON of that type, such as false, 0.5 or [1, 2].",
            ) from exc
        kept = node.name
        node.Clear()
        node.name, node.op = kept, "Const"
        node.attr["dtype"].type = dtype
        node.attr["value"].tensor.CopyFrom(value)
    return meta_graph


def _tensors(graph: tf.Graph, wanted: Wanted, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors of the signature: the outputs as named, the inputs as named or those that they need."""
    if not wanted.outputs:
        raise InputError(_question(graph, prefix), code="WHICH_TENSORS", fix=_fix(graph))
    outputs = _named(graph, wanted.outputs, prefix)
    inputs = _named(graph, wanted.inputs, prefix)
    needed = _needed(outputs, inputs)
    switches = [op.name for op in needed if _is_switch(op)]
    if switches:
        raise InputError(
            f"The outputs need {', '.join(switches)}, one value for a whole request.",
            code="WHICH_TENSORS",
            fix=f"Give the value for serving: --constant {switches[0]}=VALUE; or name all inputs with --input.",
        )
    inputs = inputs or {op.name.replace("/", "_"): op.outputs[0] for op in needed if op.type == "Placeholder"}
    if not inputs:
        raise InputError(_question(graph, prefix), code="WHICH_TENSORS", fix=_fix(graph))
    return inputs, outputs


def _is_switch(op: Any) -> bool:
    """Whether an operation is a placeholder whose value for serving somebody has to say, as keep_prob or is_training.

    A default is what the author trained with, unless it switches off what only training does: False, and of a rate or
    of what is kept 0 and 1. A whole number is no such switch.
    """
    if op.type not in _PLACEHOLDERS or op.outputs[0].shape.rank != 0:
        return False
    if op.type == "Placeholder":
        return True
    default, dtype = tf.get_static_value(op.inputs[0]), op.outputs[0].dtype
    return default not in (0, 1) if dtype.is_floating else dtype == tf.bool and default != 0


def _named(graph: tf.Graph, names: Mapping[str, str], prefix: str) -> dict[str, Any]:
    found = {}
    for name, tensor in names.items():
        try:
            found[name] = graph.get_tensor_by_name(tensor if ":" in tensor else f"{tensor}:0")
        except (KeyError, ValueError) as exc:
            raise InputError(
                f"The graph of {prefix} has no tensor {tensor!r}. {_question(graph, prefix)}",
                code="WHICH_TENSORS",
                fix=_fix(graph),
            ) from exc
    return found


def _needed(outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[Any]:
    """Return the operations that the outputs depend on where the inputs are given, sorted by name."""
    given = {tensor.ref() for tensor in inputs.values()}
    found: dict[str, Any] = {}
    stack = [tensor.op for tensor in outputs.values() if tensor.ref() not in given]
    while stack:
        op = stack.pop()
        if op.name not in found:
            found[op.name] = op
            stack += [tensor.op for tensor in op.inputs if tensor.ref() not in given] + list(op.control_inputs)
    return [found[name] for name in sorted(found)]


def _question(graph: tf.Graph, prefix: str) -> str:
    """Say what the graph offers: its placeholders, and what looks like an answer."""
    operations = graph.get_operations()
    if any(op.type in _PIPELINES for op in operations) and not _placeholders(operations):
        return (
            f"The graph of {prefix} was written in training and takes no request: its features come out of an input "
            "pipeline, as an Estimator's do. Name the function that makes it: --trainer estimator:file.py:function."
        )
    inputs = ", ".join(_placeholders(operations)[:_SHOWN]) or "none"
    outputs = ", ".join(_answers(operations)[:_SHOWN]) or "none found"
    return f"The graph of {prefix} does not say what to answer. Its placeholders: {inputs}. Likely outputs: {outputs}."


def _fix(graph: tf.Graph) -> str:
    likely = _answers(graph.get_operations())
    return f"Name the tensors: --output NAME={likely[0] if likely else 'TENSOR'} (and --input NAME=TENSOR)."


def _placeholders(operations: list[Any]) -> list[str]:
    return [op.name for op in operations if op.type == "Placeholder"]


def _answers(operations: list[Any]) -> list[str]:
    """Return operations that models usually answer with, the last first, those of training left out."""
    kinds = ("Softmax", "Sigmoid", "ArgMax", "BiasAdd", "MatMul", "Tanh", "Identity", "AddV2", "Add")
    training = ("gradients", "save/", "Adam", "Initializer", "/read", "/Assign", "report_uninitialized")
    likely = [op for op in operations if op.type in kinds and not any(part in op.name for part in training)]
    return [op.name for kind in kinds for op in reversed(likely) if op.type == kind]


def _cannot_load(what: str, exc: Exception) -> ModelError:
    return ModelError(
        f"TensorFlow {tf.__version__} cannot load {what}: {str(exc).strip().splitlines()[0][:300]}",
        code="CANNOT_LOAD",
        fix="An operation that is not registered was in tf.contrib, or in a library of its own; "
        "export the model with the TensorFlow 1 that has it.",
    )
