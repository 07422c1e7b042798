"""The rung that gives the nodes inside a graph short names.

Frameworks name a node after every scope and function that it came through, and each of its readers repeats the name: of
the graph of a small model that is more than half. Names that someone may know stay: those of inputs and outputs, and of
variables, tables and assets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from servegraph.rewriting.draft import Draft
from servegraph.rewriting.graph import Nodes, is_handle, node_name
from servegraph.rewriting.meta_graph import ServingGraph

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_HINT = "_output_shapes"  # what shape inference finds as well


def shorten(draft: Draft) -> Draft:
    """Rename the inner nodes of each graph, and leave out the shapes noted beside them."""
    return draft.with_graphs(_shortened)


def _shortened(graph: ServingGraph) -> ServingGraph:
    known = {*graph.roots, *(node_name(asset.tensor_info.name) for asset in graph.assets)}
    known |= {restore.handle for restore in graph.restores}
    known |= {name for name, node in graph.nodes.items() if is_handle(node)}
    short = _names(set(graph.nodes))
    new = {name: name if name in known else next(short) for name in graph.nodes}
    # A name that is as short already stays, so that a second run changes nothing.
    new = {name: name if len(name) <= len(other) else other for name, other in new.items()}

    def renamed(tensor: str) -> str:
        old = node_name(tensor)
        return tensor.replace(old, new[old], 1)

    nodes: Nodes = {}
    for name, node in graph.nodes.items():
        copy = nodes[new[name]] = type(node)()
        copy.CopyFrom(node)
        copy.name = new[name]
        copy.input[:] = [renamed(tensor) for tensor in node.input]
        copy.attr.pop(_HINT, None)
        copy.attr.pop("_class", None)  # which names other nodes; it is only a hint
    return replace(graph, nodes=nodes, initializers=tuple(new[name] for name in graph.initializers))


def _names(taken: set[str]) -> Iterator[str]:
    for number in count():
        name, rest = "", number
        while True:
            name, rest = _DIGITS[rest % len(_DIGITS)] + name, rest // len(_DIGITS)
            if not rest:
                break
        if name not in taken:
            yield name
