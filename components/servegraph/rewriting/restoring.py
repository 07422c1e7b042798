"""How a MetaGraph restores its variables: read off whatever wrote it, written back in one plain form.

TF2 restores in a function (`traced_restore`), TF1 in the main graph, sharded or not. All of them end in operations
that put tensors of a RestoreV2 into a variable or table; `read_restores` finds these, `write_restores` makes new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework import variable_pb2
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from servegraph.rewriting.contents import Content, size_bytes
from servegraph.rewriting.forms import Form, Part, enum
from servegraph.rewriting.graph import (
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

    With `part` it is one of the tensors that are stored for it, restored as it is.
    """

    key: str
    slice_spec: str
    dtype: int
    part: Part | None = None


class StoredAs(NamedTuple):
    """What is written for a key: its name in the files, the tensor, and the form where that is not its own."""

    name: str
    content: Content
    form: Form | None

    def parts(self, tensor: StoredTensor) -> list[tuple[str, int]]:
        """(checkpoint key, dtype enum) of each tensor that is read for `tensor`."""
        if tensor.part is not None:
            return [(f"{self.name}{tensor.part.suffix}", tensor.dtype)]
        if self.form is None:
            return [(self.name, tensor.dtype)]
        return [(f"{self.name}{part.suffix}", enum(part.dtype)) for part in self.form.parts]


@dataclass(frozen=True)
class Restore:
    """Stored tensors put into the resource of node `handle` by `put`, a NodeDef whose inputs do not count."""

    handle: str
    tensors: tuple[StoredTensor, ...]
    put: NodeDef


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
    restores: Sequence[Restore], nodes: Nodes, prefix: str, stored: Mapping[str, StoredAs]
) -> tuple[SaverDef, list[variable_pb2.VariableDef]]:
    """Add the nodes that restore, and return the saver and the variables' definitions for the collections.

    `stored` says in which form each key is stored. Loaders of the TF1 form need a VariableDef for each variable, or
    two models loaded in one process share variables by name. The `save` tensor is never run by a server, but a
    SaverDef must name one.
    """
    filename = _add(nodes, f"{prefix}/filename", "PlaceholderWithDefault", [f"{prefix}/filename/default"])
    filename.attr["dtype"].type = tf.string.as_datatype_enum
    filename.attr["shape"].shape.SetInParent()
    _const(nodes, f"{prefix}/filename/default", tf.make_tensor_proto("model"))
    plain, large = _in_order(restores, stored)
    puts = {}
    if plain:
        reader = _Reader(nodes, f"{prefix}/restore", filename.name, plain, stored)
        for number, restore in plain:
            puts[number] = _put(nodes, f"{prefix}/{{}}_{number}", restore, reader, stored)
    after: NodeDef | None = None
    for number, restore in large:
        reader = _Reader(nodes, f"{prefix}/restore_{number}", filename.name, [(number, restore)], stored, after)
        after = puts[number] = _put(nodes, f"{prefix}/{{}}_{number}", restore, reader, stored)
    reads = {
        node.input[0]: node.name for node in nodes.values() if node.op == "ReadVariableOp" and len(node.input) == 1
    }
    variables = [
        _variable_def(restore, puts[number], nodes, reads.get(restore.handle), f"{prefix}/read_{number}")
        for number, restore in enumerate(restores)
        if nodes[restore.handle].op in _VARIABLES
    ]
    _add(nodes, f"{prefix}/restore_all", "NoOp", [f"^{puts[number].name}" for number in range(len(restores))])
    _add(nodes, f"{prefix}/saved", "Identity", [filename.name]).attr["T"].type = tf.string.as_datatype_enum
    saver = SaverDef(
        filename_tensor_name=f"{filename.name}:0",
        save_tensor_name=f"{prefix}/saved:0",
        restore_op_name=f"{prefix}/restore_all",
        version=SaverDef.V2,
        max_to_keep=1,
    )
    return saver, variables


_Numbered = Sequence[tuple[int, Restore]]
LARGE_BYTES = 1 << 20


def _in_order(restores: Sequence[Restore], stored: Mapping[str, StoredAs]) -> tuple[_Numbered, _Numbered]:
    """Return the restores that are read at once, and the large ones that are turned back one after the other.

    Decoding needs the stored and the decoded tensor side by side. One at a time, the largest first, each fits into
    what the one before has freed, so that a server holds little more after loading than the variables.
    """
    plain, large = [], []
    for number, restore in enumerate(restores):
        decoded = [
            stored[t.key].content for t in restore.tensors if t.key in stored and stored[t.key].form and not t.part
        ]
        size = sum(map(size_bytes, decoded))
        if size >= LARGE_BYTES:
            large.append((-size, number, restore))
        else:
            plain.append((number, restore))
    return plain, [(number, restore) for _, number, restore in sorted(large, key=lambda item: item[:2])]


class _Reader:
    """A RestoreV2 of everything that some restores need; `take` gives the outputs in the order they were asked for."""

    def __init__(
        self,
        nodes: Nodes,
        name: str,
        filename: str,
        restores: _Numbered,
        stored: Mapping[str, StoredAs],
        after: NodeDef | None = None,
    ) -> None:
        tensors = [tensor for _, restore in restores for tensor in restore.tensors]
        parts = [(*part, tensor.slice_spec) for tensor in tensors for part in _parts(tensor, stored)]
        self._outputs = (f"{name}:{index}" for index in range(len(parts)))
        if not parts:  # all of them are forms that need nothing from the files
            return
        keys, dtypes, slices = zip(*parts, strict=True)
        _const(nodes, f"{name}/keys", tf.make_tensor_proto(keys))
        _const(nodes, f"{name}/slices", tf.make_tensor_proto(slices))
        read = _add(nodes, name, "RestoreV2", [filename, f"{name}/keys", f"{name}/slices"])
        read.attr["dtypes"].list.type.extend(dtypes)
        if after is not None:
            read.input.append(f"^{after.name}")

    def take(self, count: int) -> list[str]:
        """Return the next outputs."""
        return [next(self._outputs) for _ in range(count)]


def _put(nodes: Nodes, name: str, restore: Restore, reader: _Reader, stored: Mapping[str, StoredAs]) -> NodeDef:
    """Add the operation that puts restored tensors into their variable or table; `name` takes what a node is for."""
    put = _add(nodes, name.format("put"), restore.put.op, [restore.handle])
    for key, value in restore.put.attr.items():
        if not key.startswith("_"):
            put.attr[key].CopyFrom(value)
    for index, tensor in enumerate(restore.tensors):
        parts = reader.take(len(_parts(tensor, stored)))
        found = stored.get(tensor.key)
        if found is None or found.form is None or tensor.part is not None:
            put.input.append(parts[0])
        else:
            name_of = name.format(f"decode_{index}" if index else "decode")
            put.input.append(found.form.decode(nodes, name_of, parts, found.content))
    return put


def _parts(tensor: StoredTensor, stored: Mapping[str, StoredAs]) -> list[tuple[str, int]]:
    found = stored.get(tensor.key)
    return [(tensor.key, tensor.dtype)] if found is None else found.parts(tensor)


def variable(nodes: Nodes, name: str, key: str, like: Content | Part, device: str = "") -> Restore:
    """Add a variable of the dtype and shape of `like` that is read at `name`; return its restore from `key`."""
    dtype = enum(like.dtype)
    handle = _add(nodes, f"{name}/handle", "VarHandleOp", [])
    handle.attr["dtype"].type = dtype
    handle.attr["shape"].shape.CopyFrom(tf.TensorShape(like.shape).as_proto())
    handle.attr["shared_name"].s = name.encode()
    read = _add(nodes, name, "ReadVariableOp", [handle.name])
    read.attr["dtype"].type = dtype
    handle.device = read.device = device
    put = NodeDef(op="AssignVariableOp")
    put.attr["dtype"].type = dtype
    return Restore(handle.name, (StoredTensor(key, "", dtype),), put)


def _variable_def(
    restore: Restore, put: NodeDef, nodes: Nodes, snapshot: str | None, name: str
) -> variable_pb2.VariableDef:
    """Return the definition, which must name a read: `snapshot`, or one that is added as `name`."""
    handle = nodes[restore.handle]
    is_resource = handle.op == "VarHandleOp"
    if snapshot is None:
        snapshot = name
        read = _add(nodes, name, "ReadVariableOp" if is_resource else "Identity", [handle.name])
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


def _add(nodes: Nodes, name: str, op: str, inputs: Sequence[str]) -> NodeDef:
    node = NodeDef(name=name, op=op)
    node.input.extend(inputs)
    nodes[name] = node
    return node


def _const(nodes: Nodes, name: str, value: tf.compat.v1.AttrValue) -> None:
    node = _add(nodes, name, "Const", [])
    node.attr["dtype"].type = value.dtype
    node.attr["value"].tensor.CopyFrom(value)
