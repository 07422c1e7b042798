"""How much each weight matters: what the answers lose when it alone is stored in a smaller form."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from servegraph.answers.ask import Arrays
from servegraph.answers.child import in_child
from servegraph.answers.evidence import Question
from servegraph.rewriting.graph import node_name
from servegraph.rewriting.weights import Weight
from servegraph.savedmodel.bundle_reader import VARIABLES_PREFIX

MOST_PROBES = 48  # with more weights, neighbours are probed together
_PROBE_VALUES, _PROBE_ROWS = 6_000_000, 256  # of the samples: each weight costs a pass over them
_PROBE_S, _LEAST_ROWS = 0.15, 4  # of a pass that takes longer, rows are left out
_PUTS = ("AssignVariableOp", "Assign")


def measure(loose: Path, narrow: Path, weights: Sequence[Weight], question: Question) -> dict[str, float]:
    """Return, by key, how far answers move when a weight is as in `narrow` and all others are as in `loose`.

    Both are models of the same graph. The distance is the root mean square over the samples of what an output changes,
    in units of that output's own spread.

    Raises:
        ModelError: a session cannot load one of them, or they fail.
    """
    groups = _groups(weights)
    request = _probe(question)
    handles = [[handle for weight in group for handle in weight.handles] for group in groups]
    least = _LEAST_ROWS if question.samples.is_batched else _PROBE_ROWS
    moved = in_child(_probe_all, loose, narrow, question.tags, question.signature, request, handles, least)
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


def _probe(question: Question) -> Arrays:
    samples = question.samples
    values = sum(value.size for value in samples.inputs.values()) / max(samples.rows, 1)
    rows = max(1, min(_PROBE_ROWS, int(_PROBE_VALUES / max(values, 1))))
    return next(iter(samples.batches(rows)))


def _probe_all(
    loose: Path,
    narrow: Path,
    tags: Sequence[str],
    signature: str,
    request: Arrays,
    groups: Sequence[Sequence[str]],
    least_rows: int,
) -> list[float]:
    """Runs in a child: one session with the whole weights, into which the narrow ones of each group are put in turn."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session, session.graph.as_default():
        meta_graph = SavedModelLoader(str(loose)).load(session, list(tags))
        saver, definition = meta_graph.saver_def, meta_graph.signature_def[signature]
        wide = _by_handle(session.graph.get_operation_by_name(saver.restore_op_name).control_inputs)
        narrowed = _by_handle(_import_restores(narrow, tags, session.graph))
        outputs = {name: info.name for name, info in definition.outputs.items()}
        files = {
            saver.filename_tensor_name: str(loose / VARIABLES_PREFIX),
            "narrow/filename:0": str(narrow / VARIABLES_PREFIX),
        }

        def ask() -> Mapping[str, NDArray[Any]]:
            answers: Mapping[str, NDArray[Any]] = session.run(outputs, feeds)
            return answers

        feeds = {definition.inputs[name].name: value for name, value in request.items()}
        ask()  # the first call prepares the graph
        started = time.perf_counter()
        want = ask()
        part = _PROBE_S / (time.perf_counter() - started)
        rows = max((len(value) for value in feeds.values() if value.ndim), default=1)
        if part < 1 and rows > least_rows:
            feeds = {name: value[: max(least_rows, int(part * rows))] for name, value in feeds.items()}
            want = ask()
        distances = []
        for group in groups:
            session.run([narrowed[handle] for handle in group if handle in narrowed], files)
            distances.append(_distance(want, ask()))
            session.run([wide[handle] for handle in group if handle in wide], files)
        return distances


def _by_handle(restoring: Iterable[tf.Operation]) -> dict[str, tf.Operation]:
    """Return those that restore variables, by the variable's node."""
    return {op.inputs[0].op.name: op for op in restoring if op.type in _PUTS}


def _import_restores(narrow: Path, tags: Sequence[str], graph: tf.Graph) -> list[tf.Operation]:
    """Add what restores the narrow model, as `narrow/…`, into the variables of this graph; return what assigns them."""
    meta_graph: MetaGraphDef = SavedModelLoader(str(narrow)).get_meta_graph_def_from_tags(list(tags))
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    handles: dict[str, str] = {}
    wanted: dict[str, None] = {}
    stack = [node_name(t) for t in nodes[meta_graph.saver_def.restore_op_name].input]
    puts = set(stack)
    while stack:
        name = stack.pop()
        if name in wanted:
            continue
        wanted[name] = None
        data = [t for t in nodes[name].input if not t.startswith("^")]  # the order of restoring does not matter
        if name in puts:
            handles[node_name(data[0])] = data[0]
            data = data[1:]
        stack.extend(map(node_name, data))
    filename = node_name(meta_graph.saver_def.filename_tensor_name)
    definition = GraphDef()
    for name in wanted:
        copy = definition.node.add()
        copy.CopyFrom(nodes[name])
        copy.name = "filename" if name == filename else name
        inputs = [t for t in nodes[name].input if not t.startswith("^")]
        copy.input[:] = ["filename" if node_name(t) == filename else t for t in inputs]
    for handle in handles:
        definition.node.add().CopyFrom(nodes[handle])
    existing = {op.name for op in graph.get_operations()}
    shared = {f"{handle}:0": graph.get_tensor_by_name(f"{handle}:0") for handle in handles if handle in existing}
    tf.graph_util.import_graph_def(definition, input_map=shared, name="narrow")
    return [graph.get_operation_by_name(f"narrow/{name}") for name in puts]


def _distance(want: Mapping[str, NDArray[Any]], have: Mapping[str, NDArray[Any]]) -> float:
    """Root mean square change of all float outputs, each in units of its spread; 1 where a decision changed."""
    total, count = 0.0, 0
    for name, value in want.items():
        before, after = np.asarray(value), np.asarray(have[name])
        if before.dtype.kind == "f":
            spread = float(np.std(before)) or float(np.abs(before).max(initial=0)) or 1.0
            change = np.nan_to_num((after.astype(np.float64) - before) / spread, nan=1e6, posinf=1e6, neginf=1e6)
            total, count = total + float(np.square(change).sum()), count + change.size
        elif before.shape == after.shape:
            total, count = total + float((before != after).sum()), count + before.size
    return float(np.sqrt(total / count)) if count else 0.0
