"""Follows the edges of a main graph backwards, and its calls into functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from servegraph.savedmodel.graph import MetaGraph, Node, attr_functions
from servegraph.savedmodel.restores import node_of


class Reach(NamedTuple):
    """What one entry point can run: nodes of the main graph, and functions with all that is in them."""

    nodes: frozenset[str]
    functions: frozenset[str]


class GraphWalk:
    """Follows edges backwards in one main graph, and calls into its functions."""

    def __init__(self, meta_graph: MetaGraph, nodes: Mapping[str, Node]) -> None:
        """Walk in the main graph of `meta_graph`, whose nodes are `nodes`."""
        self._nodes = nodes
        self._functions = meta_graph.functions
        self._calls: dict[str, set[str]] = {}
        for node in meta_graph.main.watched:
            called = {name for payload in node.attrs.values() for name in attr_functions(payload)}
            if node.op in self._functions:
                called.add(node.op)  # TF1 calls a function by an operation of its name
            self._calls.setdefault(node.name, set()).update(called)

    def calls(self, node: str) -> set[str]:
        """Return the functions that a node of the main graph names."""
        return self._calls.get(node, set())

    def reach(self, outputs: Iterable[str], fed: frozenset[str]) -> Reach:
        """Return what the tensors or operations `outputs` need, given the tensors `fed`."""
        fed_names = {name.removesuffix(":0") for name in fed}
        visited: set[str] = set()
        waiting = [name for name in outputs if name.removesuffix(":0") not in fed_names]
        while waiting:
            name = waiting.pop()
            if name not in self._nodes:  # it has an output's number or a mark
                name = node_of(name)
            node = self._nodes.get(name)
            if node is None or name in visited:
                continue
            visited.add(name)
            waiting += [reference for reference in node.inputs if reference not in fed_names]
        called = [function for name in visited for function in self.calls(name)]
        return Reach(frozenset(visited), self.close_functions(called))

    def close_functions(self, names: Iterable[str]) -> frozenset[str]:
        """Return functions with all that they call in turn."""
        visited: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            body = self._functions.get(name)
            if body is None or name in visited:
                continue
            visited.add(name)
            waiting += body.calls
            waiting += body.ops.keys() & self._functions.keys()
        return frozenset(visited)
