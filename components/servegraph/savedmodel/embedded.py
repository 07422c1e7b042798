"""Graphs inside of graphs, and the constants that operations are given: what a scan for one operation misses.

A serialized GraphDef in a string constant runs when DatasetFromGraph gets it; a file name may come from a constant
in another function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from servegraph.savedmodel.graph import Body, Node, attr_functions, attr_strings
from servegraph.savedmodel.meta_graph import MAX_MESSAGE_BYTES, read_arguments, read_graph
from servegraph.savedmodel.nodes import Wanted, read_nodes
from servegraph.savedmodel.restores import node_of, origin
from servegraph.savedmodel.wire import BytesFile, Malformed, Window

_CONSTANTS: Wanted = {b"Const": frozenset({b"value"})}
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_MAX_CALL_DEPTH = 16


class GraphSource(Protocol):
    """Where the nodes of a body come from: `GraphFile`, or `EmbeddedGraph`."""

    def nodes(self, body: Body, wanted: Wanted, max_attr_bytes: int) -> dict[str, Node]:
        """Return all nodes of a body by name."""

    def arguments(self, function: Body) -> list[str]:
        """Return the names of a function's arguments in order."""


class EmbeddedGraph:
    """A GraphDef in a string. Raises `Malformed` where it is none."""

    def __init__(self, content: bytes) -> None:
        """Read it."""
        self._window = Window(BytesFile(content))
        self.functions: dict[str, Body] = {}
        self.main = read_graph(self._window, 0, len(content), self.functions)

    def nodes(self, body: Body, wanted: Wanted, max_attr_bytes: int) -> dict[str, Node]:
        """Return all nodes of a body by name."""
        return read_nodes(self._window, body, wanted, max_attr_bytes)

    def arguments(self, function: Body) -> list[str]:
        """Return the names of a function's arguments in order."""
        return read_arguments(self._window, function)


class Strings(NamedTuple):
    """What a string input can be: constants, and whether it is an asset's path, set when the model is loaded."""

    values: tuple[bytes, ...]
    is_asset: bool


class StringInputs:
    """Finds the constants behind the string inputs of operations, through calls."""

    def __init__(
        self, source: GraphSource, main: Body, functions: Mapping[str, Body], assets: Mapping[str, str]
    ) -> None:
        """Look into `source`; `assets` are the tensors of the main graph that hold an asset's path."""
        self._source = source
        self._main = main
        self._functions = functions
        self._assets = {node_of(tensor) for tensor in assets}
        self._read: dict[str, dict[str, Node]] = {}
        self._calls: dict[str, list[tuple[Body, Node]]] | None = None

    def of(self, body: Body, node: Node, position: int) -> Strings | None:
        """Return what the input at a position can be, or None where it is computed when the graph runs."""
        inputs = self._nodes(body)[node.name].inputs
        return self._trace(body, inputs[position], 0) if position < len(inputs) else None

    def _trace(self, body: Body, reference: str, depth: int) -> Strings | None:
        nodes = self._nodes(body)
        name = node_of(origin(reference, nodes))
        node = nodes.get(name)
        if node is None:
            return self._trace_argument(body, name, depth) if body.name and depth < _MAX_CALL_DEPTH else None
        if not body.name and name in self._assets:
            return Strings((), True)
        values = attr_strings(node)
        return None if values is None else Strings(tuple(values), False)

    def _trace_argument(self, function: Body, name: str, depth: int) -> Strings | None:
        arguments = self._source.arguments(function)
        if name not in arguments:
            return None
        position = arguments.index(name)
        found = []
        for body, call in self._callers(function.name):
            inputs = self._nodes(body)[call.name].inputs
            found.append(self._trace(body, inputs[position], depth + 1) if position < len(inputs) else None)
        known = [strings for strings in found if strings is not None]
        if not known or len(known) < len(found):
            return None
        values = tuple(value for strings in known for value in strings.values)
        return Strings(values, all(strings.is_asset for strings in known))

    def _callers(self, function: str) -> list[tuple[Body, Node]]:
        """Return the nodes that call a function with its arguments as their inputs."""
        if self._calls is None:
            self._calls = {}
            for body in (self._main, *self._functions.values()):
                for node in body.watched:
                    for name in self._called_by(node):
                        self._calls.setdefault(name, []).append((body, node))
        return self._calls.get(function, [])

    def _called_by(self, node: Node) -> set[str]:
        if node.op in self._functions:  # TF1 calls a function by an operation of its name
            return {node.op}
        if node.op not in _CALLS:
            return set()
        return {name for payload in node.attrs.values() for name in attr_functions(payload)}

    def _nodes(self, body: Body) -> dict[str, Node]:
        if body.name not in self._read:
            self._read[body.name] = self._source.nodes(body, _CONSTANTS, MAX_MESSAGE_BYTES)
        return self._read[body.name]


def embedded_graphs(strings: Strings | None) -> list[EmbeddedGraph] | None:
    """Read the graphs that a string input holds; None where that cannot be told without running."""
    if strings is None or not strings.values:
        return None
    try:
        return [EmbeddedGraph(value) for value in strings.values]
    except Malformed:
        return None
