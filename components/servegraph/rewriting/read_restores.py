"""How a MetaGraph restores its variables, read off whatever wrote it.

TF2 restores in a function (`traced_restore`), TF1 in the main graph, sharded or not. All of them end in operations
that put tensors of a RestoreV2 into a variable or table.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from servegraph.rewriting.graph import (
    CALLS,
    Nodes,
    Untransformable,
    behind_identities,
    node_name,
    output_index,
)
from servegraph.rewriting.restores import VARIABLES, Restore, StoredTensor
from servegraph.tensor_values import values_of

# Operations that put restored tensors into a resource: input 0 is the resource, the others come from RestoreV2.
_PUTS = {"AssignVariableOp", "Assign", "LookupTableImportV2", "LookupTableImport"}
_PASSIVE = {
    "NoOp",
    "Identity",
    "Const",
    "RestoreV2",
    "Placeholder",
    "PlaceholderWithDefault",
    "ReadVariableOp",
}


def read_restores(meta_graph: MetaGraphDef) -> tuple[Restore, ...]:
    """Return what the MetaGraph restores.

    Raises:
        Untransformable: it restores in a way that is not understood.
    """
    if not meta_graph.saver_def.restore_op_name:
        return ()
    nodes: Nodes = {node.name: node for node in meta_graph.graph_def.node}
    library = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    reader = _Reader(nodes)
    restores, seen = [], set()
    stack = [node_name(meta_graph.saver_def.restore_op_name)]
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in nodes:
            raise Untransformable(f"its restore op needs the node {name!r}, which is not there")
        node = nodes[name]
        if node.op in CALLS and node.attr["f"].func.name in library:
            stack.extend(_inline(node, library[node.attr["f"].func.name], nodes))
        elif node.op in _PUTS:
            restores.append(reader.restore(node))
            stack.extend(node_name(tensor) for tensor in node.input if tensor.startswith("^"))
        elif node.op in _PASSIVE or node.op in VARIABLES:
            stack.extend(node_name(tensor) for tensor in node.input)
        else:
            raise Untransformable(f"it restores through {node.op} ({name!r})")
    return tuple(sorted(restores, key=lambda restore: restore.handle))


@dataclass
class _Reader:
    """Reads what puts restored tensors into variables. One restore op names the tensors of all of them."""

    nodes: Nodes
    _names: dict[str, list[str]] = field(default_factory=dict)  # by the constant that holds them

    def restore(self, put: NodeDef) -> Restore:
        inputs = [tensor for tensor in put.input if not tensor.startswith("^")]
        handle = node_name(behind_identities(inputs[0], self.nodes))
        if handle not in self.nodes:
            raise Untransformable(f"it restores into {inputs[0]!r}, which is not in the main graph")
        return Restore(handle, tuple(map(self._stored, inputs[1:])), put)

    def _stored(self, tensor: str) -> StoredTensor:
        source = behind_identities(tensor, self.nodes)
        node = self.nodes[node_name(source)]
        if node.op != "RestoreV2":
            raise Untransformable(f"it restores through {node.op} ({node.name!r})")
        index = output_index(source)
        return StoredTensor(
            key=self._strings(node.input[1])[index],
            slice_spec=self._strings(node.input[2])[index],
            dtype=node.attr["dtypes"].list.type[index],
        )

    def _strings(self, tensor: str) -> list[str]:
        name = node_name(behind_identities(tensor, self.nodes))
        if name not in self._names:
            node = self.nodes[name]
            if node.op != "Const":
                raise Untransformable(f"its restore op computes {name!r} at run time")
            self._names[name] = [value.decode() for value in values_of(node.attr["value"].tensor).ravel()]
        return self._names[name]


def _inline(call: NodeDef, function: FunctionDef, nodes: Nodes) -> list[str]:
    """Put the function's nodes into `nodes` under the call's name; return those its outputs and effects need."""
    graph, flat = function_def_to_graph_def(_calling_nothing(function), include_library_functions=False)
    whole = {node.name: node for node in function.node_def}
    arguments = dict(zip((arg.name for arg in function.signature.input_arg), call.input, strict=False))

    def renamed(tensor: str) -> str:
        if tensor.startswith("^"):
            name = tensor[1:]
            return f"^{node_name(arguments[name])}" if name in arguments else f"^{call.name}/{name}"
        return arguments.get(node_name(tensor)) or f"{call.name}/{tensor}"

    for node in graph.node:
        if node.name in arguments:
            continue
        copy = NodeDef()
        copy.CopyFrom(node)
        for name, value in whole[node.name].attr.items():
            copy.attr[name].CopyFrom(value)
        copy.name = f"{call.name}/{node.name}"
        copy.input[:] = [renamed(tensor) for tensor in node.input]
        nodes[copy.name] = copy
    ends = [flat.get(tensor, tensor) for tensor in function.ret.values()]
    return [node_name(renamed(end)) for end in ends] + [
        node_name(renamed(f"^{name}")) for name in function.control_ret.values()
    ]


def _calling_nothing(function: FunctionDef) -> FunctionDef:
    """Return the function without the names of those it calls, which TensorFlow takes from its own library alone."""
    copy = FunctionDef()
    copy.CopyFrom(function)
    for node in copy.node_def:
        for value in node.attr.values():
            if value.HasField("func"):
                value.func.ClearField("name")
            elif value.HasField("list"):
                value.list.ClearField("func")
    return copy
