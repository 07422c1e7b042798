"""The rung that keeps large vocabularies with the variables instead of in the graph.

A loader copies the graph several times before the first answer, and each copy holds every word of it. What is restored
from the checkpoint goes into its table and is gone.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.rewriting.contents import Content, Literal, digest
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.graph import Nodes, behind_identities, is_handle, node_name
from servegraph.rewriting.meta_graph import ServingGraph, keep_what_serves
from servegraph.rewriting.restores import Restore, StoredTensor
from servegraph.tensor_values import values_of

LEAST_ENTRIES = 1024
_FILL = "LookupTableImportV2"


def store_tables(draft: Draft) -> Draft:
    """Let tables that are filled with many constants on loading be restored instead."""
    if draft.untouched:  # it reads the checkpoint by itself, and nothing may be left out of that
        return draft
    contents = dict(draft.contents)
    graphs = tuple(_stored(graph, contents) for graph in draft.serving_graphs)
    return replace(draft, graphs=graphs, contents=contents).with_needed_contents()


def _stored(graph: ServingGraph, contents: dict[str, Content]) -> ServingGraph:
    nodes, restores = dict(graph.nodes), list(graph.restores)
    for name, fill in graph.nodes.items():
        table = _only_filled_by(fill, graph)
        constants = _constants(fill, graph.nodes) if table else None
        if constants is None:
            continue
        tensors = []
        for constant in constants:
            values = values_of(constant.attr["value"].tensor)
            key = f"constant-{digest(values)}"
            contents.setdefault(key, Literal(values))
            tensors.append(StoredTensor(key, "", constant.attr["dtype"].type))
        restores.append(Restore(table, tuple(tensors), fill))
        del nodes[name]
    if len(restores) == len(graph.restores):
        return graph
    gone = graph.nodes.keys() - nodes.keys()
    nodes = {name: _without_waiting(node, gone) for name, node in nodes.items()}
    initializers = tuple(name for name in graph.initializers if name not in gone)
    ordered = tuple(sorted(restores, key=lambda restore: restore.handle))
    return keep_what_serves(replace(graph, nodes=nodes, restores=ordered, initializers=initializers))


def _only_filled_by(fill: NodeDef, graph: ServingGraph) -> str:
    """Return the table that `fill` and nothing else fills; empty where it is another operation, or not the only one."""
    if fill.op != _FILL:
        return ""
    table = node_name(behind_identities(fill.input[0], graph.nodes))
    others = [
        node
        for node in graph.nodes.values()
        if node is not fill
        and (node.op.startswith("InitializeTable") or node.op == _FILL)
        and node_name(behind_identities(node.input[0], graph.nodes)) == table
    ]
    is_restored = any(restore.handle == table for restore in graph.restores)
    return table if not others and not is_restored and is_handle(graph.nodes[table]) else ""


def _constants(fill: NodeDef, nodes: Nodes) -> list[NodeDef] | None:
    """Return the constants that a table is filled with, None where they are few or computed."""
    found = [nodes[node_name(behind_identities(tensor, nodes))] for tensor in fill.input[1:3]]
    if any(node.op != "Const" for node in found):
        return None
    shape = found[0].attr["value"].tensor.tensor_shape
    return found if len(shape.dim) == 1 and shape.dim[0].size >= LEAST_ENTRIES else None


def _without_waiting(node: NodeDef, gone: Set[str]) -> NodeDef:
    """Return the node without its control edges from those that are gone."""
    if not any(tensor.startswith("^") and tensor[1:] in gone for tensor in node.input):
        return node
    copy = NodeDef()
    copy.CopyFrom(node)
    copy.input[:] = [tensor for tensor in node.input if not (tensor.startswith("^") and tensor[1:] in gone)]
    return copy
