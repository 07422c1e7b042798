"""A loop of the graph, in the control flow of TensorFlow 1: Enter, Merge, Switch, NextIteration and Exit.

Every executor runs these as they are. What one turn hands to the next has one owner, so that an operation that writes
into its input does so in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from servegraph.rewriting.forms import add, binary, constant, enum
from servegraph.rewriting.graph import Nodes


class Typed(NamedTuple):
    """A tensor of the graph, by name, and its dtype."""

    tensor: str
    dtype: str


# Adds what a turn does to the nodes that it gets, and returns what it hands on. It also gets the number of the turn,
# an int32 scalar, what the turn before handed on, and what is given to all turns.
Turn = Callable[[Nodes, str, str, Sequence[str]], str]


def repeat(nodes: Nodes, name: str, turns: int, first: Typed, given: Sequence[Typed], turn: Turn) -> str:
    """Add a loop of so many turns below `name`, of which the first is handed `first`; return what the last hands on."""
    count = _Carried(nodes, f"{name}/count", Typed(constant(nodes, f"{name}/zero", 0, "int32"), "int32"), name)
    handed = _Carried(nodes, f"{name}/handed", first, name)
    limit = constant(nodes, f"{name}/limit", turns, "int32")
    _run_in_frame_of(nodes, limit, count.merged)
    less = binary(nodes, f"{name}/less", "Less", count.merged, limit, "int32")
    goes_on = add(nodes, f"{name}/goes_on", "LoopCond", less).name
    number, before = count.inside(goes_on), handed.inside(goes_on)
    entered = [_enter(nodes, f"{name}/given_{n}", each, name, is_constant=True) for n, each in enumerate(given)]
    body: Nodes = {}
    result = turn(body, number, before, entered)
    one = constant(body, f"{name}/one", 1, "int32")
    following = binary(body, f"{name}/following", "AddV2", number, one, "int32")
    for node in body.values():
        if node.op == "Const":
            _run_in_frame_of(body, node.name, number)
    nodes.update(body)
    count.close(following)
    return handed.close(result)


class _Carried:
    """What is handed from turn to turn; `merged` is what a turn begins with, and the last leaves behind."""

    def __init__(self, nodes: Nodes, name: str, first: Typed, frame: str) -> None:
        self._nodes, self._name, self._dtype = nodes, name, first.dtype
        self.merged = self._typed("merged", "Merge", _enter(nodes, f"{name}/enter", first, frame))
        nodes[self.merged].attr["N"].i = 2

    def inside(self, goes_on: str) -> str:
        """Return it as a turn sees it that takes place."""
        switch = self._typed("switch", "Switch", self.merged, goes_on)
        return self._typed("inside", "Identity", f"{switch}:1")

    def close(self, tensor: str) -> str:
        """Hand `tensor` on at the end of a turn; return what is there after the last."""
        self._nodes[self.merged].input.append(self._typed("next", "NextIteration", tensor))
        return self._typed("exit", "Exit", f"{self._name}/switch")

    def _typed(self, key: str, op: str, *inputs: str) -> str:
        name = f"{self._name}/{key}"
        add(self._nodes, name, op, *inputs).attr["T"].type = enum(self._dtype)
        return name


def _enter(nodes: Nodes, name: str, first: Typed, frame: str, *, is_constant: bool = False) -> str:
    node = add(nodes, name, "Enter", first.tensor)
    node.attr["T"].type, node.attr["frame_name"].s = enum(first.dtype), frame.encode()
    node.attr["is_constant"].b, node.attr["parallel_iterations"].i = is_constant, 1
    return name


def _run_in_frame_of(nodes: Nodes, name: str, other: str) -> None:
    """Let a constant be one of a turn: what has no input is outside of the loop."""
    nodes[name].input.append(f"^{other}")
