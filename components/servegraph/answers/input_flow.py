"""Where a tensor of a MetaGraphDef goes and where it comes from, through functions, loops and branches.

Outputs are named as GraphDef names them in a main graph (`node:3`) and as FunctionDef does in a body (`node:name:0`).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from tensorflow.core.framework.attr_value_pb2 import AttrValue

from servegraph.tensor_values import values_of

DEEPEST_CALL = 50
FUNCTIONS = ("f", "body", "then_branch", "else_branch", "cond")  # attributes that name a function of a call
SKIPPED_INPUTS = {"If": 1, "StatelessIf": 1, "Case": 1, "StatelessCase": 1}  # inputs before a function's arguments


class Scope:
    """One graph, or the body of a function where it is called; `arguments` are where it was called from."""

    def __init__(
        self,
        nodes: Any,
        functions: Mapping[str, Any],
        arguments: Mapping[str, tuple[Scope, str]] | None = None,
        depth: int = 0,
    ) -> None:
        """Index the nodes of a GraphDef or FunctionDef; `depth` counts the calls from the main graph."""
        self.functions = functions
        self.arguments = arguments or {}
        self.depth = depth
        self._nodes = {node.name: node for node in nodes}
        self._readers: dict[str, list[tuple[Any, int]]] = defaultdict(list)
        self._outputs: dict[str, set[str]] = defaultdict(set)
        for node in nodes:
            for index, tensor in enumerate(node.input):
                if not tensor.startswith("^"):
                    self._readers[self._full(tensor)].append((node, index))
                    self._outputs[tensor.split(":")[0]].add(self._full(tensor))

    def readers(self, tensor: str) -> list[tuple[Any, int]]:
        """Return the nodes that read a tensor, with the number of their input."""
        return self._readers.get(self._full(tensor), [])

    def outputs(self, node: Any) -> set[str]:
        """Return the outputs of a node that anything reads."""
        return self._outputs.get(node.name, set())

    def output(self, node: Any, name: str, index: int, flat_index: int) -> str:
        """Return an output by its name and number (in a function), or its number among all (in a main graph)."""
        return f"{node.name}:{flat_index}" if not self.depth else f"{node.name}:{name}:{index}"

    def calls(self, node: Any, index: int) -> Iterator[tuple[Scope, str]]:
        """Yield what input `index` of a call is inside of the functions it calls."""
        skipped = SKIPPED_INPUTS.get(node.op, 0)
        for name, given in self._called(node):
            own = [argument.name for argument in self.functions[name].signature.input_arg]
            if 0 <= index - skipped < len(own) and self.depth < DEEPEST_CALL:
                yield self._inside(name, given), own[index - skipped]

    def origin(self, tensor: str) -> tuple[Scope, Any]:
        """Return the node that a tensor is read from or passed on from, and where it is; None is an unknown node."""
        if tensor in self.arguments:
            scope, outer = self.arguments[tensor]
            return scope.origin(outer)
        node = self._nodes.get(tensor.split(":")[0])
        if node is not None and node.op in ("Identity", "ReadVariableOp"):
            return self.origin(node.input[0])
        return self, node

    def constant(self, tensor: str) -> Any:
        """Return the value of a tensor as an array, None where it is not a constant."""
        _, node = self.origin(tensor)
        return values_of(node.attr["value"].tensor) if node is not None and node.op == "Const" else None

    def nodes(self, ops: Collection[str]) -> Iterator[tuple[Scope, Any]]:
        """Yield the nodes of these operations, here and in what is called from here."""
        yield from self._nodes_of(ops, self._holding(ops))

    def _nodes_of(self, ops: Collection[str], holding: Collection[str]) -> Iterator[tuple[Scope, Any]]:
        for node in self._nodes.values():
            if node.op in ops:
                yield self, node
            for name, given in self._called(node):
                if name in holding and self.depth < DEEPEST_CALL:
                    yield from self._inside(name, given)._nodes_of(ops, holding)

    def _called(self, node: Any) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield the functions that a node calls, each with what it is given."""
        names = [node.attr[key].func.name for key in FUNCTIONS if key in node.attr]
        names += [function.name for function in attr(node, "branches").list.func]
        names += [node.op] if node.op in self.functions else []
        given = [tensor for tensor in node.input if not tensor.startswith("^")][SKIPPED_INPUTS.get(node.op, 0) :]
        yield from ((name, given) for name in names if name in self.functions)

    def _inside(self, name: str, given: Sequence[str]) -> Scope:
        function = self.functions[name]
        own = [argument.name for argument in function.signature.input_arg]
        arguments = {argument: (self, tensor) for argument, tensor in zip(own, given, strict=False)}
        return Scope(function.node_def, self.functions, arguments, self.depth + 1)

    def _holding(self, ops: Collection[str]) -> set[str]:
        """Return the functions that hold such an operation, or call one that does."""
        callers: dict[str, set[str]] = defaultdict(set)
        found: list[str] = []
        for name, function in self.functions.items():
            found += [name] if any(node.op in ops for node in function.node_def) else []
            for node in function.node_def:
                for called, _ in self._called(node):
                    callers[called].add(name)
        holding: set[str] = set()
        while found:
            name = found.pop()
            if name not in holding:
                holding.add(name)
                found.extend(callers[name])
        return holding

    def _full(self, tensor: str) -> str:
        return tensor if ":" in tensor or self.depth else f"{tensor}:0"


def flow(scope: Scope, tensor: str, goes_on: Callable[[Any, int], bool]) -> Iterator[tuple[Scope, Any, int]]:
    """Yield what reads a tensor, with where it is and the number of its input, nearest first, each once.

    So is what reads it inside of functions that it is given to, and the outputs of a node where it `goes_on`.
    """
    queue = deque([(scope, tensor)])
    seen = set()
    while queue:
        scope, tensor = queue.popleft()
        for node, index in scope.readers(tensor):
            if (scope, node.name, index) in seen:
                continue
            seen.add((scope, node.name, index))
            yield scope, node, index
            queue.extend(scope.calls(node, index))
            if goes_on(node, index):
                queue.extend((scope, output) for output in scope.outputs(node))


def attr(node: Any, key: str) -> Any:
    """Return an attribute; empty where it is missing; `node.attr[key]` would add it to the node."""
    return node.attr[key] if key in node.attr else AttrValue()
