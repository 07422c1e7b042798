"""The rung that puts small weights into the graph as constants, which TensorFlow prepares for its kernels once.

A variable may change between two calls, so that a convolution lays its weights out anew for each; those of a constant
can be laid out once and kept. Whether that pays differs from model to model: it is measured. A graph ends at 2 GB.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.optimize.share import changes_variables
from servegraph.rewriting.contents import read_values, size_bytes
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.forms import FLOATS, constant, is_zero_bias
from servegraph.rewriting.graph import Nodes, node_name
from servegraph.rewriting.meta_graph import ServingGraph, keep_what_serves, with_resource_variables
from servegraph.savedmodel.bundle_reader import BundleReader

LARGEST_BYTES = 64 * 1024**2  # of all constants of a graph together; the smallest weights come first


def as_constants(draft: Draft) -> Draft:
    """Replace variables that are only read, and stored in their own form, by constants; the smallest first."""
    with draft.tensors() as tensors:
        return draft.with_graphs(lambda graph: _changed(with_resource_variables(graph), draft, tensors))


def _changed(graph: ServingGraph, draft: Draft, tensors: BundleReader | None) -> ServingGraph:
    if changes_variables(graph):
        return graph
    reads = _reads(graph)
    nodes, spent = dict(graph.nodes), 0
    for handle, key in sorted(_movable(graph, draft).items(), key=lambda item: size_bytes(draft.contents[item[1]])):
        content = draft.contents[key]
        spent += size_bytes(content)
        if spent > LARGEST_BYTES:
            break
        if handle in reads and not is_zero_bias(values := read_values(content, tensors)):
            _move(nodes, reads[handle], values, content.dtype)
    moved = replace(graph, nodes=nodes)
    return graph if nodes == dict(graph.nodes) else keep_what_serves(moved)


def _movable(graph: ServingGraph, draft: Draft) -> dict[str, str]:
    """Return {variable: checkpoint key} of those whose values are stored whole, as they are."""
    found = {}
    for restore in graph.restores:
        tensor = restore.tensors[0]
        is_plain = restore.put.op == "AssignVariableOp" and not tensor.slice_spec and tensor.part is None
        if is_plain and tensor.key not in draft.forms and draft.contents[tensor.key].dtype in FLOATS:
            found[restore.handle] = tensor.key
    return found


def _reads(graph: ServingGraph) -> dict[str, list[NodeDef]]:
    """Return the reads of each variable that nothing else uses, and that no request replaces."""
    reads: dict[str, list[NodeDef]] = {}
    other: set[str] = set()
    fed = graph.fed
    for node in graph.nodes.values():
        for tensor in node.input:
            if node.op == "ReadVariableOp" and node.name not in fed:
                reads.setdefault(node_name(tensor), []).append(node)
            else:
                other.add(node_name(tensor))
    return {handle: nodes for handle, nodes in reads.items() if handle not in other}


def _move(nodes: Nodes, reads: list[NodeDef], values: NDArray[Any], dtype: str) -> None:
    """Put one constant in the place of the first read, and Identities of it in that of the others."""
    first, *others = reads
    name = constant(nodes, first.name, values, dtype)
    nodes[name].device = first.device
    for read in others:
        same = nodes[read.name] = NodeDef(name=read.name, op="Identity", input=[name], device=read.device)
        same.attr["T"].CopyFrom(read.attr["dtype"])
