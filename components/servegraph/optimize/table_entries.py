"""What a lookup table is filled with: constants of the graph, or the lines of a text file among the assets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.rewriting.graph import Nodes, attr, behind_identities, node_name
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.tensor_values import values_of

FROM_CONSTANTS = frozenset({"LookupTableImportV2", "InitializeTableV2"})
FROM_FILE = "InitializeTableFromTextFileV2"
FILLS = FROM_CONSTANTS | {FROM_FILE}

# tensorflow/core/kernels/lookup_util.cc: what a column of a text file is called.
_WHOLE_LINE, _LINE_NUMBER = -2, -1

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Entries:
    """`keys[i]` has the id `ids[i]`; their types as the table has them."""

    keys: NDArray[Any]
    ids: Ids
    key_type: tf.DType
    id_type: tf.DType


def read_entries(fill: NodeDef, graph: ServingGraph, source: Path) -> Entries | None:
    """Return what `fill` puts into its table; None where it is computed, or no integers are looked up."""
    if fill.op == FROM_FILE:
        return _read_file(fill, graph, source)
    keys, ids = (graph.nodes[node_name(behind_identities(tensor, graph.nodes))] for tensor in fill.input[1:3])
    if keys.op != "Const" or ids.op != "Const":
        return None
    key_type, id_type = (tf.as_dtype(node.attr["dtype"].type) for node in (keys, ids))
    if not id_type.is_integer:
        return None
    texts, numbers = (values_of(node.attr["value"].tensor).ravel() for node in (keys, ids))
    return Entries(texts, numbers.astype(np.int64), key_type, id_type)


def write_entries(nodes: Nodes, fill: NodeDef, entries: Entries) -> None:
    """Let `fill`, a node of `nodes`, put these entries into its table; they are in the graph from then on."""
    if fill.op == FROM_FILE:
        control = [tensor for tensor in fill.input if tensor.startswith("^")]
        table, path = fill.input[:2]
        filled = NodeDef(name=fill.name, op="LookupTableImportV2", input=[table, "", "", *control], device=fill.device)
        filled.attr["Tin"].type = entries.key_type.as_datatype_enum
        filled.attr["Tout"].type = entries.id_type.as_datatype_enum
        fill.CopyFrom(filled)
        _forget(path, nodes)
    columns = (("keys", entries.keys, entries.key_type), ("ids", entries.ids, entries.id_type))
    for position, (what, values, dtype) in enumerate(columns, start=1):
        name = f"{fill.name}/{what}"
        constant = nodes[name] = NodeDef(name=name, op="Const", device=fill.device)
        constant.attr["dtype"].type = dtype.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values, dtype=dtype, shape=[len(values)]))
        fill.input[position] = name


def _read_file(fill: NodeDef, graph: ServingGraph, source: Path) -> Entries | None:
    name = _source_of(fill.input[1], graph.nodes)
    assets = [asset.filename for asset in graph.assets if node_name(asset.tensor_info.name) == name]
    columns = attr(fill, "key_index").i, attr(fill, "value_index").i
    path = source / "assets" / assets[0] if len(assets) == 1 else None
    if path is None or columns != (_WHOLE_LINE, _LINE_NUMBER) or attr(fill, "offset").i or not path.is_file():
        return None
    content = path.read_bytes()
    if b"\r" in content:  # which TensorFlow drops when it reads, and another reader may not
        return None
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    size = attr(fill, "vocab_size").i
    lines = lines[:size] if size > 0 else lines
    return Entries(np.array(lines, object), np.arange(len(lines), dtype=np.int64), tf.string, tf.int64)


def _source_of(path: str, nodes: Nodes) -> str:
    """Return the node that a path comes from: TF2 puts it into a variable first, when the model is loaded."""
    *_, first = _way_back(path, nodes)
    assignment = _assignment(first, nodes)
    return first if assignment is None else node_name(assignment.input[1])


def _way_back(path: str, nodes: Nodes) -> Iterator[str]:
    """Yield the nodes that a path comes through, as far back as they only pass it on."""
    node = nodes[node_name(path)]
    yield node.name
    while node.op in ("Identity", "ReadVariableOp"):
        node = nodes[node_name(node.input[0])]
        yield node.name


def _assignment(variable: str, nodes: Nodes) -> NodeDef | None:
    """Return what fills a variable, None where that is not one operation."""
    found = [node for node in nodes.values() if node.op == "AssignVariableOp" and node_name(node.input[0]) == variable]
    return found[0] if len(found) == 1 else None


def _forget(path: str, nodes: Nodes) -> None:
    """Let nothing wait for the variable of a path that nothing reads any more, so that its file is not needed."""
    way = set(_way_back(path, nodes))
    *_, variable = _way_back(path, nodes)
    assignment = _assignment(variable, nodes)
    if assignment is None:
        return
    others = (node for node in nodes.values() if node.name not in way and node is not assignment)
    if any(node_name(tensor) in way for node in others for tensor in node.input if not tensor.startswith("^")):
        return
    waits = f"^{assignment.name}"
    for node in nodes.values():
        if waits in node.input:
            left = [tensor for tensor in node.input if tensor != waits]
            del node.input[:]
            node.input.extend(left)
