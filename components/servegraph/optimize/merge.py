"""Equal operations on equal inputs become one; TensorFlow does that as well, but only after it has copied them all."""

from __future__ import annotations

from dataclasses import replace

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_VARIANT
from tensorflow.python.framework import op_def_registry

from servegraph.rewriting.graph import CONTROL_FLOW, Nodes, in_order, node_name, redirected
from servegraph.rewriting.meta_graph import ServingGraph

# They belong to one branch or loop, or can be fed.
_APART = CONTROL_FLOW | {"PlaceholderWithDefault"}


def merge_equal(graph: ServingGraph) -> ServingGraph:
    """Let the readers of an operation read the first one that equals it; in `graph` no request changes a variable.

    Those that have another that equals them are left for whoever drops what serving does not reach.
    """
    named = {*graph.roots, *graph.initializers, *(node_name(asset.tensor_info.name) for asset in graph.assets)}
    first: dict[tuple[object, ...], str] = {}
    same: dict[str, str] = {}
    nodes: Nodes = dict(graph.nodes)
    for name in in_order(graph.nodes):
        node = nodes[name] = _redirected(graph.nodes[name], same)
        if name in named or not _is_pure(node):
            continue
        attributes = tuple((key, node.attr[key].SerializeToString(deterministic=True)) for key in sorted(node.attr))
        equal = first.setdefault((node.op, node.device, tuple(node.input), attributes), name)
        if equal != name:
            same[name] = equal
    return replace(graph, nodes={name: _redirected(node, same) for name, node in nodes.items()})


def _is_pure(node: NodeDef) -> bool:
    """Whether an operation gives the same for the same inputs, every time."""
    if node.op in ("Const", "ReadVariableOp"):
        return True
    definition = op_def_registry.get(node.op)
    if definition is None or definition.is_stateful or node.op in _APART or not node.input:
        return False
    return not any(out.is_ref or out.type == DT_VARIANT for out in definition.output_arg)


def _redirected(node: NodeDef, same: dict[str, str]) -> NodeDef:
    inputs = [redirected(tensor, same) for tensor in node.input]
    if inputs == list(node.input):
        return node
    copy = NodeDef()
    copy.CopyFrom(node)
    control = dict.fromkeys(tensor for tensor in inputs if tensor.startswith("^"))
    copy.input[:] = [*(tensor for tensor in inputs if not tensor.startswith("^")), *control]
    return copy
