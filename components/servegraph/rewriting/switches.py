"""Training switches: placeholders that serving never feeds, such as `is_training`, and the branches they decide."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.rewriting.graph import Nodes, behind_identities, node_name, output_index
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.tensor_values import values_of

_CALL_OF = {"If": "StatefulPartitionedCall", "StatelessIf": "PartitionedCall"}


def settle_switches(graph: ServingGraph) -> ServingGraph:
    """Give placeholders that no signature feeds their default for good, and drop the branches that then never run."""
    fed = graph.fed
    switches = {
        name
        for name, node in graph.nodes.items()
        if node.op == "PlaceholderWithDefault" and name not in fed and _is_constant(node.input[0], graph.nodes)
    }
    if not switches:
        return graph
    nodes = dict(graph.nodes)
    for name in switches:
        nodes[name] = _identity(nodes[name], nodes[name].input[0], nodes[name].attr["dtype"].type)
    for name, node in graph.nodes.items():
        if node.op in _CALL_OF and (taken := _predicate(node.input[0], nodes, fed)) is not None:
            nodes[name] = _call(node, "then_branch" if taken else "else_branch")
    return replace(graph, nodes=_without_dead_branches(nodes, fed))


def _is_constant(tensor: str, nodes: Mapping[str, NodeDef]) -> bool:
    node = nodes.get(node_name(behind_identities(tensor, nodes)))
    return node is not None and node.op == "Const"


def _predicate(tensor: str, nodes: Mapping[str, NodeDef], fed: Set[str]) -> bool | None:
    """Return the value of a scalar that is constant, None where it is not, or where a request may replace it."""
    node = nodes.get(node_name(tensor))
    if node is None or node.name in fed:
        return None
    if node.op in ("Identity", "LogicalNot"):
        inner = _predicate(node.input[0], nodes, fed)
        return inner if inner is None or node.op == "Identity" else not inner
    if node.op != "Const" or node.attr["dtype"].type != tf.bool.as_datatype_enum:
        return None
    values = values_of(node.attr["value"].tensor)
    return bool(values) if values.ndim == 0 else None


def _identity(node: NodeDef, tensor: str, dtype: int) -> NodeDef:
    made = NodeDef(name=node.name, op="Identity", device=node.device, input=[tensor])
    made.input.extend(i for i in node.input if i.startswith("^"))
    made.attr["T"].type = dtype
    return made


def _call(node: NodeDef, branch: str) -> NodeDef:
    call = NodeDef(name=node.name, op=_CALL_OF[node.op], device=node.device, input=node.input[1:])
    call.attr["Tin"].CopyFrom(node.attr["Tin"])
    call.attr["Tout"].CopyFrom(node.attr["Tout"])
    call.attr["f"].func.CopyFrom(node.attr[branch].func)
    return call


def _without_dead_branches(nodes: Nodes, fed: Set[str]) -> Nodes:
    """Replace each Switch with a constant predicate by its live output, and each Merge by its only live input.

    Deadness spreads as in TensorFlow's executor: a node with a dead input, a control input as well, does not run.
    """
    dead: set[str] = set()  # outputs, as "node:index"; "node" for all of a node's
    live_output: dict[str, int] = {}
    for name, node in nodes.items():
        if node.op in ("Switch", "RefSwitch") and (taken := _predicate(node.input[1], nodes, fed)) is not None:
            live_output[name] = int(taken)
            dead.add(f"{name}:{1 - int(taken)}")
    if not live_output:
        return nodes
    consumers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for tensor in node.input:
            consumers.setdefault(node_name(tensor), []).append(name)
    stack = [consumer for name in live_output for consumer in consumers.get(name, [])]
    while stack:
        name = stack.pop()
        if name not in dead and name not in live_output and _does_not_run(nodes[name], dead):
            dead.add(name)
            stack.extend(consumers.get(name, []))
    settled = {}
    for name, node in nodes.items():
        if name in dead:
            continue
        if name in live_output:
            settled[name] = _identity(node, node.input[0], node.attr["T"].type)
        else:
            settled[name] = _settled(node, live_output, dead)
    return settled


def _does_not_run(node: NodeDef, dead: set[str]) -> bool:
    gone = [_is_dead(tensor, dead) for tensor in node.input]
    if node.op in ("Merge", "RefMerge"):
        return all(gone)
    return any(gone)


def _is_dead(tensor: str, dead: set[str]) -> bool:
    if tensor.startswith("^"):
        return tensor[1:] in dead
    name = node_name(tensor)
    return name in dead or f"{name}:{output_index(tensor)}" in dead


def _settled(node: NodeDef, live_output: Mapping[str, int], dead: set[str]) -> NodeDef:
    """Return a node that reads what is left: the Identity that a Switch became has one output."""
    inputs = [tensor for tensor in node.input if not _is_dead(tensor, dead)]
    renamed = [node_name(t) if node_name(t) in live_output and not t.startswith("^") else t for t in inputs]
    data = [tensor for tensor in renamed if not tensor.startswith("^")]
    if node.op in ("Merge", "RefMerge") and len(data) == 1 and len(inputs) < len(node.input):
        made = _identity(node, data[0], node.attr["T"].type)
        made.input.extend(tensor for tensor in renamed if tensor.startswith("^"))
        return made
    if renamed == list(node.input):
        return node
    copy = NodeDef()
    copy.CopyFrom(node)
    copy.input[:] = renamed
    return copy
