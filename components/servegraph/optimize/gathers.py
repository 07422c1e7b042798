"""Tables that are only gathered from, row by row, as embeddings are: they may be held in another form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.rewriting.contents import Content, Literal, Rounded, Scaled, Stored
from servegraph.rewriting.forms import HALVES, add, enum
from servegraph.rewriting.graph import Nodes, attr, node_name, takes_rows
from servegraph.rewriting.handles import written_by
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.rewriting.restores import variable

_GATHERS = ("ResourceGather", "GatherV2", "Gather")
_INDICES = "Tindices"
_INDEX_DTYPES = ("int32", "int64")  # of a ResourceGather; a GatherV2 takes int16 as well


def gathers_of(graph: ServingGraph) -> Mapping[str, list[NodeDef]]:
    """Return the gathers of whole rows from each variable that nothing else uses."""
    gathers: dict[str, list[NodeDef]] = {}
    certain = graph.certain_nodes
    reads = {node.name: node_name(node.input[0]) for node in graph.nodes.values() if node.op == "ReadVariableOp"}
    other = {handle for root in graph.roots for handle in (root, reads.get(root, root))}
    for node in graph.nodes.values():
        for position, tensor in enumerate(node.input):
            name = node_name(tensor)
            if position == 0 and _is_gather(node, certain):
                gathers.setdefault(reads.get(name, name), []).append(node)
            elif position > 0 or node.op != "ReadVariableOp":
                other |= {name, reads.get(name, name)}
    return {handle: nodes for handle, nodes in gathers.items() if handle not in other}


def _is_gather(node: NodeDef, nodes: Nodes) -> bool:
    """Whether a ResourceGather can do the same."""
    if node.op not in _GATHERS or attr(node, _INDICES).type not in map(enum, _INDEX_DTYPES):
        return False
    return takes_rows(node, nodes)


def gather_from(nodes: Nodes, name: str, like: NodeDef, handle: str, dtype: str) -> str:
    """Add a gather of the same rows from another variable, after all that the other one runs after.

    That may be a check of the ids, and be said of the read of its table, or of its axis.
    """
    table, ids, *rest = like.input
    left_out = [nodes[node_name(tensor)] for tensor in (table, *rest) if not tensor.startswith("^")]
    before = [tensor for node in (like, *left_out) for tensor in node.input if tensor.startswith("^")]
    node = add(nodes, name, "ResourceGather", handle, ids, *dict.fromkeys(before))
    node.attr[_INDICES].CopyFrom(like.attr[_INDICES])
    node.attr["dtype"].type = enum(dtype)
    return name


def round_tables(graph: ServingGraph, contents: dict[str, Content]) -> ServingGraph:
    """Hold a float32 table in half precision if all that is gathered from it is cast to that, as in mixed precision.

    The graph is flat, and no request changes a variable; `contents` gets what the tables hold then.
    """
    uses, written, readers = gathers_of(graph), written_by(graph.initializers, graph.nodes), _readers(graph)
    nodes, restores = dict(graph.nodes), []
    for restore in graph.restores:
        tensor, gathers = restore.tensors[0], uses.get(restore.handle, [])
        content, dtype = contents[tensor.key], _cast_to(gathers, readers, {*graph.roots, *graph.fed})
        is_whole = not tensor.slice_spec and tensor.part is None and restore.handle not in written
        if dtype is None or not is_whole or not isinstance(content, (Stored, Scaled, Literal)):
            restores.append(restore)
            continue
        key, name = f"{tensor.key}:{dtype}", f"{restore.handle}/{dtype}"
        contents.setdefault(key, Rounded(content, dtype))
        restores.append(variable(nodes, name, key, contents[key], nodes[restore.handle].device))
        for gather in gathers:
            gather_from(nodes, gather.name, gather, f"{name}/handle", dtype)
            for cast in readers[gather.name]:
                same = nodes[cast.name] = NodeDef(name=cast.name, op="Identity", input=[gather.name])
                same.attr["T"].type = enum(dtype)
    return replace(graph, nodes=nodes, restores=tuple(restores))


def _cast_to(gathers: Sequence[NodeDef], readers: Mapping[str, Sequence[NodeDef]], public: Set[str]) -> str | None:
    """Return the half precision that everything gathered is cast to, and used in no other way."""
    found = set()
    for gather in gathers:
        if gather.name in public or gather.name not in readers:
            return None
        for reader in readers[gather.name]:
            is_plain = reader.op == "Cast" and attr(reader, "SrcT").type == enum("float32")
            is_plain = is_plain and not attr(reader, "Truncate").b and len(reader.input) == 1
            found.add(tf.as_dtype(attr(reader, "DstT").type).name if is_plain else None)
    return found.pop() if len(found) == 1 and found <= set(HALVES) else None


def _readers(graph: ServingGraph) -> dict[str, list[NodeDef]]:
    """Return the nodes that read each node, or run after it."""
    readers: dict[str, list[NodeDef]] = {}
    for node in graph.nodes.values():
        for name in dict.fromkeys(map(node_name, node.input)):
            readers.setdefault(name, []).append(node)
    return readers
