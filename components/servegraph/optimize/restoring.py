"""How a MetaGraph restores its variables: read off whatever wrote it, written back in one plain form.

TF2 restores in a function (`traced_restore`), TF1 in the main graph, sharded or not. All of them end in operations
that put tensors of a RestoreV2 into a variable or table; `read_restores` finds these, `write_restores` makes new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import tensorflow as tf
from tensorflow.core.framework import variable_pb2
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from servegraph.optimize.encodings import ENCODINGS
from servegraph.optimize.graph import (
    CALLS,
    Nodes,
    Untransformable,
    behind_identities,
    node_name,
    output_index,
)

# Operations that put restored tensors into a resource: input 0 is the resource, the others come from RestoreV2.
_PUTS = {"AssignVariableOp", "Assign", "LookupTableImportV2", "LookupTableImport"}
_VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}
_PASSIVE = {
    "NoOp",
    "Identity",
    "Const",
    "RestoreV2",
    "Placeholder",
    "PlaceholderWithDefault",
    "ReadVariableOp",
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the checkpoint, or a slice of it; `dtype` is TensorFlow's enum of what is restored.

    `encoding` names the form it is stored in, where that is not its own (`encodings.ENCODINGS`).
    """

    key: str
    slice_spec: str
    dtype: int
    encoding: str | None = None

    @property
    def parts(self) -> list[tuple[str, int]]:
        """(checkpoint key, dtype enum) of each tensor that is read for it."""
        if self.encoding is None:
            return [(self.key, self.dtype)]
        return [(f"{self.key}{suffix}", dtype) for suffix, dtype in ENCODINGS[self.encoding].parts]


@dataclass(frozen=True)
class Restore:
    """Stored tensors put into the resource of node `handle` by `put`, a NodeDef whose inputs do not count."""

    handle: str
    tensors: tuple[StoredTensor, ...]
    put: NodeDef

    def into(self, handle: str) -> Restore:
        """Return the same restore into another resource."""
        return replace(self, handle=handle)


def read_restores(meta_graph: MetaGraphDef) -> tuple[Restore, ...]:
    """Return what the MetaGraph restores.

    Raises:
        Untransformable: it restores in a way that is not understood.
    """
    if not meta_graph.saver_def.restore_op_name:
        return ()
    nodes: Nodes = {node.name: node for node in meta_graph.graph_def.node}
    library = {function.signature.name: function for function in meta_graph.graph_def.library.function}
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
            restores.append(_read_put(node, nodes))
            stack.extend(node_name(tensor) for tensor in node.input if tensor.startswith("^"))
        elif node.op in _PASSIVE or node.op in _VARIABLES:
            stack.extend(node_name(tensor) for tensor in node.input)
        else:
            raise Untransformable(f"it restores through {node.op} ({name!r})")
    return tuple(sorted(restores, key=lambda restore: restore.handle))


def write_restores(
    restores: Sequence[Restore], nodes: Nodes, prefix: str
) -> tuple[SaverDef, list[variable_pb2.VariableDef]]:
    """Add the nodes that restore, and return the saver and the variables' definitions for the collections.

    Loaders of the TF1 form need a VariableDef for each variable, or two models loaded in one process share variables
    by name. The `save` tensor is never run by a server, but a SaverDef must name one.
    """
    filename = _add(nodes, f"{prefix}/filename", "PlaceholderWithDefault", [f"{prefix}/filename/default"])
    filename.attr["dtype"].type = tf.string.as_datatype_enum
    filename.attr["shape"].shape.SetInParent()
    _const(nodes, f"{prefix}/filename/default", tf.make_tensor_proto("model"))
    stored = [(*part, tensor.slice_spec) for restore in restores for tensor in restore.tensors for part in tensor.parts]
    keys, dtypes, slices = zip(*stored, strict=True)
    _const(nodes, f"{prefix}/keys", tf.make_tensor_proto(keys))
    _const(nodes, f"{prefix}/slices", tf.make_tensor_proto(slices))
    read = _add(nodes, f"{prefix}/restore", "RestoreV2", [filename.name, f"{prefix}/keys", f"{prefix}/slices"])
    read.attr["dtypes"].list.type.extend(dtypes)
    outputs = (f"{read.name}:{index}" for index in range(len(stored)))
    variables, puts = [], []
    for number, restore in enumerate(restores):
        put = _add(nodes, f"{prefix}/put_{number}", restore.put.op, [restore.handle])
        for key, value in restore.put.attr.items():
            if not key.startswith("_"):
                put.attr[key].CopyFrom(value)
        for tensor in restore.tensors:
            parts = [next(outputs) for _ in tensor.parts]
            decode = ENCODINGS[tensor.encoding].decode if tensor.encoding else None
            put.input.append(decode(nodes, f"{prefix}/decode_{number}", parts) if decode else parts[0])
        puts.append(f"^{put.name}")
        if nodes[restore.handle].op in _VARIABLES:
            variables.append(_variable_def(restore, put, nodes, f"{prefix}/read_{number}"))
    _add(nodes, f"{prefix}/restore_all", "NoOp", puts)
    _add(nodes, f"{prefix}/saved", "Identity", [filename.name]).attr["T"].type = tf.string.as_datatype_enum
    saver = SaverDef(
        filename_tensor_name=f"{filename.name}:0",
        save_tensor_name=f"{prefix}/saved:0",
        restore_op_name=f"{prefix}/restore_all",
        version=SaverDef.V2,
        max_to_keep=1,
    )
    return saver, variables


def _variable_def(restore: Restore, put: NodeDef, nodes: Nodes, snapshot: str) -> variable_pb2.VariableDef:
    handle = nodes[restore.handle]
    is_resource = handle.op == "VarHandleOp"
    read = _add(nodes, snapshot, "ReadVariableOp" if is_resource else "Identity", [handle.name])
    read.attr["dtype" if is_resource else "T"].type = handle.attr["dtype"].type
    return variable_pb2.VariableDef(
        variable_name=f"{handle.name}:0",
        initializer_name=put.name,
        snapshot_name=f"{snapshot}:0",
        is_resource=is_resource,
        trainable=False,
    )


def _read_put(node: NodeDef, nodes: Nodes) -> Restore:
    inputs = [tensor for tensor in node.input if not tensor.startswith("^")]
    handle = node_name(behind_identities(inputs[0], nodes))
    if handle not in nodes:
        raise Untransformable(f"it restores into {inputs[0]!r}, which is not in the main graph")
    return Restore(handle, tuple(_read_stored(tensor, nodes) for tensor in inputs[1:]), node)


def _read_stored(tensor: str, nodes: Nodes) -> StoredTensor:
    source = behind_identities(tensor, nodes)
    node = nodes[node_name(source)]
    if node.op != "RestoreV2":
        raise Untransformable(f"it restores through {node.op} ({node.name!r})")
    index = output_index(source)
    return StoredTensor(
        key=_strings(node.input[1], nodes)[index],
        slice_spec=_strings(node.input[2], nodes)[index],
        dtype=node.attr["dtypes"].list.type[index],
    )


def _strings(tensor: str, nodes: Mapping[str, NodeDef]) -> list[str]:
    node = nodes[node_name(behind_identities(tensor, nodes))]
    if node.op != "Const":
        raise Untransformable(f"its restore op computes {node.name!r} at run time")
    return [value.decode() for value in tf.make_ndarray(node.attr["value"].tensor).ravel()]


def _inline(call: NodeDef, function: tf.compat.v1.NodeDef, nodes: Nodes) -> list[str]:
    """Put the function's nodes into `nodes` under the call's name; return those its outputs and effects need."""
    graph, flat = function_def_to_graph_def(function, include_library_functions=False)
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
        copy.name = f"{call.name}/{node.name}"
        copy.input[:] = [renamed(tensor) for tensor in node.input]
        nodes[copy.name] = copy
    ends = [flat.get(tensor, tensor) for tensor in function.ret.values()]
    return [node_name(renamed(end)) for end in ends] + [
        node_name(renamed(f"^{name}")) for name in function.control_ret.values()
    ]


def _add(nodes: Nodes, name: str, op: str, inputs: Sequence[str]) -> NodeDef:
    node = NodeDef(name=name, op=op)
    node.input.extend(inputs)
    nodes[name] = node
    return node


def _const(nodes: Nodes, name: str, value: tf.compat.v1.AttrValue) -> None:
    node = _add(nodes, name, "Const", [])
    node.attr["dtype"].type = value.dtype
    node.attr["value"].tensor.CopyFrom(value)
