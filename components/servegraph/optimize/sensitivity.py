"""How much each weight matters: what the answers lose when it alone is stored in a smaller form."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from servegraph.answers.ask import Arrays, fed_tensors, short_message, tensors_of
from servegraph.answers.child import in_child
from servegraph.answers.evidence import Question
from servegraph.errors import ModelError
from servegraph.rewriting.graph import node_name
from servegraph.rewriting.weights import Weight
from servegraph.savedmodel.bundle_reader import VARIABLES_PREFIX

MOST_PROBES = 48  # with more weights, neighbours are probed together
# Each weight costs a pass over some of the samples: fewer of large records, or of a large model. How long one takes has
# no say in it, so that the same model comes out on a fast machine and on a slow one.
_MOST_ROWS, _LEAST_ROWS = 256, 4
_MOST_VALUES, _MOST_PRODUCTS = 1_200_000, 1_000_000_000
_PUTS = ("AssignVariableOp", "Assign")


def measure(loose: Path, narrow: Path, weights: Sequence[Weight], question: Question) -> dict[str, float]:
    """Return, by key, how far answers move when a weight is as in `narrow` and all others are as in `loose`.

    Both are models of the same graph. The distance is the root mean square over the samples of what an output changes,
    in units of that output's own spread.

    Raises:
        ModelError: a session cannot load one of them, or they fail.
    """
    groups = _groups(weights)
    request = _probe(question, sum(prod(weight.content.shape) for weight in weights))
    handles = [[handle for weight in group for handle in weight.handles] for group in groups]
    moved = in_child(_probe_all, loose, narrow, question.tags, question.signature, request, handles)
    return {weight.key: distance for group, distance in zip(groups, moved, strict=True) for weight in group}


def _groups(weights: Sequence[Weight]) -> list[list[Weight]]:
    """Return the weights one by one, or neighbours by key together, about equally large."""
    in_order = sorted(weights, key=lambda weight: weight.key)
    if len(in_order) <= MOST_PROBES:
        return [[weight] for weight in in_order]
    share = sum(prod(weight.content.shape) for weight in in_order) / MOST_PROBES
    groups: list[list[Weight]] = [[]]
    filled = 0.0
    for weight in in_order:
        if groups[-1] and filled >= share and len(groups) < MOST_PROBES:
            groups.append([])
            filled = 0.0
        groups[-1].append(weight)
        filled += prod(weight.content.shape)
    return groups


def _probe(question: Question, products: int) -> Arrays:
    """Return the first samples, as many as a pass is to take; a record costs about `products` products of numbers."""
    samples = question.samples
    values = sum(value.size for value in samples.inputs.values()) / max(samples.rows, 1)
    rows = min(_MOST_VALUES / max(values, 1), _MOST_PRODUCTS / max(products, 1), _MOST_ROWS)
    return next(iter(samples.batches(max(_LEAST_ROWS, int(rows)))))


def _probe_all(
    loose: Path,
    narrow: Path,
    tags: Sequence[str],
    signature: str,
    request: Arrays,
    groups: Sequence[Sequence[str]],
) -> list[float]:
    """Runs in a child: one session with the whole weights, into which the narrow ones of each group are put in turn."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session, session.graph.as_default():
        meta_graph = SavedModelLoader(str(loose)).load(session, list(tags))
        saver, definition = meta_graph.saver_def, meta_graph.signature_def[signature]
        wide = _by_handle(session.graph.get_operation_by_name(saver.restore_op_name).control_inputs)
        narrowed = _by_handle(_import_restores(narrow, tags, session.graph))
        outputs = tensors_of(definition.outputs)
        files = {
            saver.filename_tensor_name: str(loose / VARIABLES_PREFIX),
            "narrow/filename:0": str(narrow / VARIABLES_PREFIX),
        }

        fed = fed_tensors(definition.inputs)
        feeds = {fed[name]: value for name, value in request.items()}
        distances = []
        try:
            want = session.run(outputs, feeds)
            for group in groups:
                session.run([narrowed[handle] for handle in group if handle in narrowed], files)
                distances.append(_distance(want, session.run(outputs, feeds)))
                session.run([wide[handle] for handle in group if handle in wide], files)
        except tf.errors.OpError as exc:
            message = f"The signature {signature!r} of {loose} fails with other weights: {short_message(exc)}"
            fix = "Leave the rung out, or name the weights to keep whole (--keep)."
            raise ModelError(message, code="CANNOT_CALL", fix=fix) from exc
        return distances


def _by_handle(restoring: Iterable[tf.Operation]) -> dict[str, tf.Operation]:
    """Return those that restore variables, by the variable's node."""
    return {op.inputs[0].op.name: op for op in restoring if op.type in _PUTS}


def _import_restores(narrow: Path, tags: Sequence[str], graph: tf.Graph) -> list[tf.Operation]:
    """Add what restores the narrow model, as `narrow/…`, into the variables of this graph; return what assigns them.

    Tables are the same in both.
    """
    meta_graph: MetaGraphDef = SavedModelLoader(str(narrow)).get_meta_graph_def_from_tags(list(tags))
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    handles: dict[str, str] = {}
    wanted: dict[str, None] = {}
    restored = {node_name(t) for t in nodes[meta_graph.saver_def.restore_op_name].input}
    puts = [name for name in restored if nodes[name].op in _PUTS]
    stack = [*puts]
    while stack:
        name = stack.pop()
        if name in wanted:
            continue
        wanted[name] = None
        needed = _inputs(nodes[name], restored)
        if name in restored:
            handles[node_name(needed[0])] = needed[0]
            needed = needed[1:]
        stack.extend(map(node_name, needed))
    filename = node_name(meta_graph.saver_def.filename_tensor_name)
    definition = GraphDef()
    for name in wanted:
        copy = definition.node.add()
        copy.CopyFrom(nodes[name])
        copy.name = "filename" if name == filename else name
        copy.input[:] = ["filename" if node_name(t) == filename else t for t in _inputs(nodes[name], restored)]
    for handle in handles:
        definition.node.add().CopyFrom(nodes[handle])
    existing = {op.name for op in graph.get_operations()}
    shared = {f"{handle}:0": graph.get_tensor_by_name(f"{handle}:0") for handle in handles if handle in existing}
    tf.graph_util.import_graph_def(definition, input_map=shared, name="narrow")
    return [graph.get_operation_by_name(f"narrow/{name}") for name in puts]


def _inputs(node: NodeDef, restored: Collection[str]) -> list[str]:
    """Return the inputs without the order in which `restored` are: here each is by itself."""
    return [t for t in node.input if not (t.startswith("^") and node_name(t) in restored)]


def _distance(want: Mapping[str, NDArray[Any]], have: Mapping[str, NDArray[Any]]) -> float:
    """Root mean square change of all float outputs, each in units of its spread; 1 where a decision changed.

    Of an output with another size, as of a detector that found more, all have changed.
    """
    total, count = 0.0, 0
    for name, value in want.items():
        before, after = np.asarray(value), np.asarray(have[name])
        if before.shape != after.shape:
            changed = max(before.size, after.size)
            total, count = total + changed, count + changed
        elif before.dtype.kind == "f":
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite becomes a large change
                spread = float(np.std(before)) or float(np.abs(before).max(initial=0)) or 1.0
                change = np.nan_to_num((after.astype(np.float64) - before) / spread, nan=1e6, posinf=1e6, neginf=1e6)
            total, count = total + float(np.square(change).sum()), count + change.size
        else:
            total, count = total + float((before != after).sum()), count + before.size
    return float(np.sqrt(total / count)) if count else 0.0
