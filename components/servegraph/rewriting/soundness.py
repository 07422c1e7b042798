"""Does a graph hold together: what follows its edges, and counts on the inputs of an operation, relies on that.

TensorFlow refuses a graph that does not, but `tf.saved_model.load` looks only at the functions that it calls, and a
session only at the main graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.python.framework import op_def_registry

from servegraph.rewriting.graph import Untransformable, inputs_taken, node_name, tensors_of

Named = TypeVar("Named")

_MERGES = {"Merge", "RefMerge"}  # take what the last turn of a loop of TF1 left
_NEXT_TURNS = {"NextIteration", "RefNextIteration"}


def require_sound(graph: MetaGraphDef) -> None:
    """Require that names are of one node or function each, and that every edge leads to one, in no circle.

    Raises:
        Untransformable: it is not so, a signature names no tensor of the graph, or an operation has not its inputs.
    """
    functions = graph.graph_def.library.function
    library = _by_name(((f.signature.name, f.signature) for f in functions), "functions")
    nodes = _require_sound_body("the main graph", graph.graph_def.node, (), library)
    for function in functions:
        _require_sound_function(function, library)
    for name, signature in graph.signature_def.items():
        for info in (*signature.inputs.values(), *signature.outputs.values()):
            for tensor in tensors_of(info):
                if node_name(tensor) not in nodes:
                    raise Untransformable(f"the signature {name!r} names {tensor!r}, which is not there")


def _require_sound_function(function: FunctionDef, library: Mapping[str, OpDef]) -> None:
    where = f"the function {function.signature.name!r}"
    arguments = [argument.name for argument in function.signature.input_arg]
    there = {*arguments, *_require_sound_body(where, function.node_def, arguments, library)}
    missing = [argument.name for argument in function.signature.output_arg if argument.name not in function.ret]
    missing += [tensor for tensor in function.ret.values() if node_name(tensor) not in there]
    missing += [name for name in function.control_ret.values() if name not in there]
    if missing:
        raise Untransformable(f"{where} returns {missing[0]!r}, which is not there")


def _require_sound_body(
    where: str, nodes: Iterable[NodeDef], arguments: Iterable[str], library: Mapping[str, OpDef]
) -> Mapping[str, NodeDef]:
    by_name = _by_name(((node.name, node) for node in nodes), f"nodes of {where}")
    given = frozenset(arguments)
    for node in by_name.values():
        for tensor in node.input:
            if (name := node_name(tensor)) not in by_name and name not in given:
                raise Untransformable(f"the node {node.name!r} of {where} takes {tensor!r}, which is not there")
        definition = library.get(node.op) or op_def_registry.get(node.op)
        data = sum(not tensor.startswith("^") for tensor in node.input)
        if definition is not None and data != (takes := sum(n for _, n in inputs_taken(node, definition))):
            raise Untransformable(f"the node {node.name!r} of {where} has {data} inputs, and takes {takes}")
    _require_no_circle(where, by_name)
    return by_name


def _by_name(named: Iterable[tuple[str, Named]], what: str) -> Mapping[str, Named]:
    found: dict[str, Named] = {}
    for name, value in named:
        if name in found:
            raise Untransformable(f"two {what} are called {name!r}")
        found[name] = value
    return found


def _require_no_circle(where: str, nodes: Mapping[str, NodeDef]) -> None:
    """Take away, again and again, what needs nothing that is left. What then is left is a circle, or needs one."""
    waits = {name: len(edges) for name, node in nodes.items() if (edges := set(_edges(node, nodes)))}
    users: dict[str, list[str]] = {}
    for name in waits:
        for before in set(_edges(nodes[name], nodes)):
            users.setdefault(before, []).append(name)
    done = [name for name in nodes if name not in waits]
    while done:
        for name in users.get(done.pop(), ()):
            waits[name] -= 1
            if not waits[name]:
                del waits[name]
                done.append(name)
    if waits:
        raise Untransformable(f"the node {min(waits)!r} of {where} is computed from itself")


def _edges(node: NodeDef, nodes: Mapping[str, NodeDef]) -> Iterator[str]:
    for tensor in node.input:
        before = nodes.get(node_name(tensor))
        if before is not None and not (node.op in _MERGES and before.op in _NEXT_TURNS):
            yield before.name
