"""Does the graph hold together: every name in it that stands for a node or a function is of one that is there.

A graph file has no checksum, so this is what tells of a changed byte in a name. TensorFlow imports all of a graph,
also what no signature reaches, so one such name keeps all of it from loading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping

from servegraph.inspect_graph.findings import Finding, finding
from servegraph.inspect_graph.operations import bodies
from servegraph.savedmodel.graph import Body, MetaGraph, Node
from servegraph.savedmodel.graph_reader import GraphFile
from servegraph.savedmodel.ops import known_ops
from servegraph.savedmodel.reachability import Reachability
from servegraph.savedmodel.restores import node_of

# A body with more is not looked at: all of its nodes are held at once, which for a million are 350 MB and 10 s.
MAX_NODES = 200_000
# tensorflow/core/graph/graph_constructor.cc, IsValidNodeName, and what internal operations may begin with.
_is_node_name: Callable[[str], object] = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./>-]*").fullmatch


def check_references(
    where: str, meta_graph: MetaGraph, file: GraphFile, reachability: Reachability, *, has_variables: bool, verify: bool
) -> Iterator[Finding]:
    """Find names of nodes and functions that are not there; in functions and plain graphs only with `verify`.

    Where there are no variables, TensorFlow runs no restore, and the saver of a graph that was frozen may name nothing.
    """
    broken = list(_broken_calls(meta_graph))
    is_looked_at = verify and meta_graph.main.node_count <= MAX_NODES
    nodes = reachability.main_nodes or (file.nodes(meta_graph.main) if is_looked_at else {})
    if nodes:
        broken += _broken_tensors(meta_graph, nodes)
        broken += _broken_saver(meta_graph, nodes) if has_variables else ()
        broken += _broken_inputs(meta_graph.main, nodes, ())
    if verify:
        for body in meta_graph.functions.values():
            if body.node_count > MAX_NODES:
                continue
            broken += _broken_inputs(body, file.nodes(body), frozenset(file.arguments(body)))
    if broken:
        more = f", and {len(broken) - 1:,} more" if len(broken) > 1 else ""
        yield finding("GRAPH_INCONSISTENT", f"{where}: {broken[0]}{more}.")


def _broken_calls(meta_graph: MetaGraph) -> Iterator[str]:
    for name in sorted(meta_graph.functions.keys() & known_ops().keys()):
        yield f"the function {name!r} has the name of an operation"
    there = frozenset(meta_graph.functions) | frozenset(known_ops())
    for body in bodies(meta_graph):
        for name in sorted(body.calls - there):
            yield f"{_place(body)} calls the function {name!r}, which is not there"


def _broken_tensors(meta_graph: MetaGraph, nodes: Mapping[str, Node]) -> Iterator[str]:
    for name, signature in meta_graph.signatures.items():
        for info in (*signature.inputs.values(), *signature.outputs.values()):
            for tensor in info.tensors:
                if node_of(tensor) not in nodes:
                    yield f"the signature {name!r} has the tensor {tensor!r}, which is not there"


def _broken_saver(meta_graph: MetaGraph, nodes: Mapping[str, Node]) -> Iterator[str]:
    if saver := meta_graph.saver:
        for name in (saver.filename_tensor, saver.restore_op):
            if name and node_of(name) not in nodes:
                yield f"the saver has {name!r}, which is not there"


def _broken_inputs(body: Body, nodes: Mapping[str, Node], arguments: Container[str]) -> Iterator[str]:
    if len(nodes) < body.node_count:
        yield f"{_place(body)} has {body.node_count:,} nodes of {len(nodes):,} names"
    for node in nodes.values():
        if not _is_node_name(node.name):
            yield f"{_place(body)} has a node with the name {node.name!r}"
        for reference in node.inputs:
            if reference in nodes:  # the quick way: as it is, most are
                continue
            name = node_of(reference)
            if name not in nodes and name not in arguments:
                yield f"the node {node.name!r} in {_place(body)} takes {reference!r}, which is not there"


def _place(body: Body) -> str:
    return f"the function {body.name!r}" if body.name else "the main graph"
