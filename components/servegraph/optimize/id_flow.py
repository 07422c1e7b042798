"""Where the ids of a lookup table go: only through operations that move them, to the embedding tables they pick from.

If that is proven, a table may number its entries in another way, as long as the rows are picked accordingly. Ids below
the first that may move (a mask, what is out of vocabulary) keep their numbers, so that comparisons with them stay true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.rewriting.graph import Nodes, attr, behind_identities, node_name
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.tensor_values import values_of

# Operations that move the values of an input as they are, with the inputs whose values come out.
_MOVES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Identity", "Reshape", "ExpandDims", "Squeeze", "Slice", "StridedSlice", "Transpose"), (0,)),
    **dict.fromkeys(("Tile", "BroadcastTo", "Cast", "Pad", "Unpack", "Split", "SplitV", "StopGradient"), (0,)),
    **dict.fromkeys(("PadV2",), (0, 2)),
    **dict.fromkeys(("SelectV2", "Select"), (1, 2)),
    "RaggedTensorToTensor": (1, 2),
    "GatherV2": (0,),
    "GatherNd": (0,),
}
_MOVES_ALL = {"Pack": 0, "ConcatV2": 1}  # all inputs but the last so many
_SHAPES = {"Shape", "ShapeN", "Size", "Rank"}
_COMPARES = {"Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"}
# `ids < other`: an id that may move is at the least or above, before and after, so `other` may be the least itself.
_BELOW = {("Less", 0), ("Greater", 1)}
_PICKS = {"ResourceGather", "GatherV2"}
_PADS_WITH_ZERO = {"Pad"}


@dataclass
class Flow:
    """The ids of one table: every tensor that holds them, and the nodes that pick rows by them."""

    ids: set[str] = field(default_factory=set)
    picks: dict[str, NodeDef] = field(default_factory=dict)


def follow(finds: list[NodeDef], graph: ServingGraph, least: int) -> Flow | None:
    """Return where the ids go that `finds` look up; None where they are computed with, compared, or answered.

    `least` is the lowest id that may get another number: constants below it may stand beside ids.
    """
    nodes, roots = graph.certain_nodes, set(graph.roots)
    users: dict[str, list[tuple[NodeDef, int]]] = {}
    for node in graph.nodes.values():
        for position, tensor in enumerate(node.input):
            if not tensor.startswith("^"):
                users.setdefault(_plain(tensor), []).append((node, position))
    flow = Flow(ids={find.name for find in finds})
    stack = list(flow.ids)
    checked: list[tuple[NodeDef, tuple[int, ...]]] = []
    while stack:
        tensor = stack.pop()
        if node_name(tensor) in roots:
            return None
        for node, position in users.get(tensor, ()):
            moved = _moved(node, nodes)
            if position in moved:
                checked.append((node, moved))
                for out in _outputs(node):
                    if out not in flow.ids:
                        flow.ids.add(out)
                        stack.append(out)
            elif node.op in _PICKS and position == 1:
                flow.picks[node.name] = node
            elif not _is_harmless(node, position, nodes, users, least):
                return None
    if all(_are_ids(node, moved, nodes, flow, least) for node, moved in checked):
        return flow
    return None


def constant_value(tensor: str, nodes: Nodes) -> int | None:
    """Return the only value of a constant of integers, None of any other tensor."""
    node = nodes[node_name(behind_identities(tensor, nodes))]
    if node.op != "Const" or not tf.as_dtype(node.attr["dtype"].type).is_integer:
        return None
    values = values_of(node.attr["value"].tensor)
    return int(values.ravel()[0]) if values.size and (values == values.ravel()[0]).all() else None


def _plain(tensor: str) -> str:
    return tensor.removesuffix(":0")


def _moved(node: NodeDef, nodes: Nodes) -> tuple[int, ...]:
    if node.op in _MOVES_ALL:
        data = [tensor for tensor in node.input if not tensor.startswith("^")]
        return tuple(range(len(data) - _MOVES_ALL[node.op]))
    if node.op == "SelectV2" and _wraps_negative(node, nodes):
        return (2,)
    return _MOVES.get(node.op, ())


def _outputs(node: NodeDef) -> list[str]:
    number = attr(node, "num").i or attr(node, "num_split").i or 1
    return [node.name, *(f"{node.name}:{index}" for index in range(1, number))]


def _wraps_negative(node: NodeDef, nodes: Nodes) -> bool:
    """Whether it is `where(x < 0, x + length, x)`, as Keras writes before a gather: ids are not negative."""
    condition, then, otherwise = (nodes[node_name(tensor)] for tensor in node.input[:3])
    return (
        condition.op == "Less"
        and constant_value(condition.input[1], nodes) == 0
        and then.op in ("AddV2", "Add")
        and _plain(condition.input[0]) == _plain(then.input[0]) == _plain(node.input[2])
        and otherwise is nodes[node_name(condition.input[0])]
    )


def _is_harmless(
    node: NodeDef, position: int, nodes: Nodes, users: Mapping[str, list[tuple[NodeDef, int]]], least: int
) -> bool:
    """Whether what a node makes of ids stays as it was when they are numbered in another way."""
    if node.op in _SHAPES:
        return True
    if node.op in _COMPARES:
        other = constant_value(node.input[1 - position], nodes)
        # Other ids keep their side of the least, and their distance from what is below it does not matter.
        return other is not None and (other < least or (other == least and (node.op, position) in _BELOW))
    if node.op in ("AddV2", "Add"):
        behind = users.get(node.name, [])
        return bool(behind) and all(
            user.op == "SelectV2" and at == 1 and _wraps_negative(user, nodes) for user, at in behind
        )
    return False


def _are_ids(node: NodeDef, moved: tuple[int, ...], nodes: Nodes, flow: Flow, least: int) -> bool:
    """Whether everything that comes out of a node is ids of this table or constants below them."""
    for position in moved:
        tensor = _plain(node.input[position])
        if tensor in flow.ids:
            continue
        value = constant_value(tensor, nodes)
        if value is None or not -1 <= value < least:
            return False
    return node.op not in _PADS_WITH_ZERO or least > 0
