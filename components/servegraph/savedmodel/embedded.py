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
from servegraph.savedmodel.ops import VARIABLE_OPS
from servegraph.savedmodel.restores import MAX_HANDED_ON, node_of
from servegraph.savedmodel.wire import BytesFile, Malformed, Window

_CONSTANTS: Wanted = {b"Const": frozenset({b"value"})}
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_MAX_DEPTH = 16  # of calls, and of variables that begin as others
# What hands on a string as it is; anything else may make another one of it.
_UNCHANGING = frozenset({"Identity", "StopGradient", "Snapshot", "EnsureShape", "ReadVariableOp"})
_ASSIGNING = frozenset({"Assign", "AssignVariableOp"})


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
        self._traced: dict[tuple[str, str], Strings | None] = {}

    def of(self, body: Body, node: Node, position: int) -> Strings | None:
        """Return what the input at a position can be, or None where it is computed when the graph runs."""
        inputs = self._nodes(body)[node.name].inputs
        return self._trace(body, inputs[position], 0) if position < len(inputs) else None

    def _trace(self, body: Body, reference: str, depth: int) -> Strings | None:
        """Each place is traced once: calls can lead to it in more ways than there is time for."""
        name = _unchanged(reference, self._nodes(body))
        place = (body.name, name)
        if place not in self._traced:
            self._traced[place] = None  # what leads back to itself is not known
            self._traced[place] = self._trace_node(body, name, depth) if depth < _MAX_DEPTH else None
        return self._traced[place]

    def _trace_node(self, body: Body, name: str, depth: int) -> Strings | None:
        node = self._nodes(body).get(name)
        if node is None:
            return self._trace_argument(body, name, depth) if body.name else None
        if not body.name and name in self._assets:
            return Strings((), True)
        if not body.name and node.op in VARIABLE_OPS:
            return self._trace_variable(name, depth)
        values = attr_strings(node)
        return Strings(tuple(values), False) if values else None  # none: they are encoded in another way

    def _trace_argument(self, function: Body, name: str, depth: int) -> Strings | None:
        arguments = self._source.arguments(function)
        if name not in arguments:
            return None
        position = arguments.index(name)
        found = []
        for body, call in self._callers(function.name):
            inputs = self._nodes(body)[call.name].inputs
            found.append(self._trace(body, inputs[position], depth + 1) if position < len(inputs) else None)
        return _any_of(found)

    def _trace_variable(self, name: str, depth: int) -> Strings | None:
        """Return what a variable of the main graph is set to there: TF1 keeps an asset's path in one."""
        assigned = [
            node.inputs[1]
            for node in self._nodes(self._main).values()
            if node.op in _ASSIGNING and len(node.inputs) > 1 and node_of(node.inputs[0]) == name
        ]
        return _any_of([self._trace(self._main, reference, depth + 1) for reference in assigned])

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


def _unchanged(reference: str, nodes: Mapping[str, Node]) -> str:
    """Return the node that a string comes from, through `MAX_HANDED_ON` operations that leave it as it is."""
    name = node_of(reference)
    for _ in range(MAX_HANDED_ON):
        node = nodes.get(name)
        if node is None or node.op not in _UNCHANGING or not node.inputs:
            break
        name = node_of(node.inputs[0])
    return name


def _any_of(found: list[Strings | None]) -> Strings | None:
    """Return what a string can be that is one of several; None where any of them is not known, or there is none."""
    known = [strings for strings in found if strings is not None]
    if not known or len(known) < len(found):
        return None
    values = tuple(dict.fromkeys(value for strings in known for value in strings.values))
    return Strings(values, all(strings.is_asset for strings in known))


def embedded_graphs(contents: tuple[bytes, ...]) -> list[EmbeddedGraph] | None:
    """Read graphs in strings; None where there is none, or one is something else."""
    try:
        return [EmbeddedGraph(content) for content in contents] or None
    except Malformed:
        return None
