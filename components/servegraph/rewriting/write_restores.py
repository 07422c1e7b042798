"""How a MetaGraph restores its variables, written in one plain form that every loader takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf
from tensorflow.core.framework import variable_pb2
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from servegraph.rewriting.blocks import LARGE_BYTES, Blocks
from servegraph.rewriting.contents import size_bytes
from servegraph.rewriting.forms import add, constant
from servegraph.rewriting.graph import Nodes
from servegraph.rewriting.restore_loop import restore_in_place
from servegraph.rewriting.restores import VARIABLES, Restore, StoredAs, StoredTensor, read


def write_restores(
    restores: Sequence[Restore], nodes: Nodes, prefix: str, stored: Mapping[str, StoredAs]
) -> tuple[SaverDef, list[variable_pb2.VariableDef]]:
    """Add the nodes that restore, and return the saver and the variables' definitions for the collections.

    `stored` says in which form each key is stored. Loaders of the TF1 form need a VariableDef for each variable, or
    two models loaded in one process share variables by name. The `save` tensor is never run by a server, but a
    SaverDef must name one.
    """
    filename = add(nodes, f"{prefix}/filename", "PlaceholderWithDefault", f"{prefix}/filename/default")
    filename.attr["dtype"].type = tf.string.as_datatype_enum
    filename.attr["shape"].shape.SetInParent()
    constant(nodes, f"{prefix}/filename/default", "model", "string")
    plain, large = _in_order(restores, stored)
    puts = {}
    if plain:
        reader = _Reader(nodes, f"{prefix}/restore", filename.name, plain, stored)
        for number, restore in plain:
            puts[number] = _put(nodes, f"{prefix}/{{}}_{number}", restore, reader, stored)
    after: NodeDef | None = None
    for number, restore in large:
        name = f"{prefix}/{{}}_{number}"
        found = stored[restore.tensors[0].key]
        if isinstance(found.form, Blocks):
            value = restore_in_place(nodes, name.format("decode"), filename.name, found, found.form, after)
            after = puts[number] = _put_node(nodes, name, restore)
            after.input.append(value)
        else:
            reader = _Reader(nodes, name.format("restore"), filename.name, [(number, restore)], stored, after)
            after = puts[number] = _put(nodes, name, restore, reader, stored)
    reads = {
        node.input[0]: node.name for node in nodes.values() if node.op == "ReadVariableOp" and len(node.input) == 1
    }
    variables = [
        _variable_def(restore, puts[number], nodes, reads.get(restore.handle), f"{prefix}/read_{number}")
        for number, restore in enumerate(restores)
        if nodes[restore.handle].op in VARIABLES
    ]
    add(nodes, f"{prefix}/restore_all", "NoOp", *(f"^{puts[number].name}" for number in range(len(restores))))
    add(nodes, f"{prefix}/saved", "Identity", filename.name).attr["T"].type = tf.string.as_datatype_enum
    saver = SaverDef(
        filename_tensor_name=f"{filename.name}:0",
        save_tensor_name=f"{prefix}/saved:0",
        restore_op_name=f"{prefix}/restore_all",
        version=SaverDef.V2,
        max_to_keep=1,
    )
    return saver, variables


_Numbered = Sequence[tuple[int, Restore]]


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
        self._outputs = iter(read(nodes, name, filename, parts, after))

    def take(self, count: int) -> list[str]:
        """Return the next outputs."""
        return [next(self._outputs) for _ in range(count)]


def _put_node(nodes: Nodes, name: str, restore: Restore) -> NodeDef:
    """Add the operation that puts what it is still to be given into a variable or table."""
    put = add(nodes, name.format("put"), restore.put.op, restore.handle)
    for key, value in restore.put.attr.items():
        if not key.startswith("_"):
            put.attr[key].CopyFrom(value)
    return put


def _put(nodes: Nodes, name: str, restore: Restore, reader: _Reader, stored: Mapping[str, StoredAs]) -> NodeDef:
    """Add the operation that puts restored tensors into their variable or table; `name` takes what a node is for."""
    put = _put_node(nodes, name, restore)
    for index, tensor in enumerate(restore.tensors):
        parts = reader.take(len(_parts(tensor, stored)))
        found = stored.get(tensor.key)
        if found is None or found.form is None or tensor.part is not None:
            put.input.append(parts[0])
        elif not isinstance(found.form, Blocks):
            name_of = name.format(f"decode_{index}" if index else "decode")
            put.input.append(found.form.decode(nodes, name_of, parts, found.content))
    return put


def _parts(tensor: StoredTensor, stored: Mapping[str, StoredAs]) -> list[tuple[str, int]]:
    found = stored.get(tensor.key)
    return [(tensor.key, tensor.dtype)] if found is None else found.parts(tensor)


def _variable_def(
    restore: Restore, put: NodeDef, nodes: Nodes, snapshot: str | None, name: str
) -> variable_pb2.VariableDef:
    """Return the definition, which must name a read: `snapshot`, or one that is added as `name`."""
    handle = nodes[restore.handle]
    is_resource = handle.op == "VarHandleOp"
    if snapshot is None:
        snapshot = name
        read = add(nodes, name, "ReadVariableOp" if is_resource else "Identity", handle.name)
        read.attr["dtype" if is_resource else "T"].type = handle.attr["dtype"].type
    return variable_pb2.VariableDef(
        variable_name=f"{handle.name}:0",
        initializer_name=put.name,
        snapshot_name=f"{snapshot}:0",
        is_resource=is_resource,
        trainable=False,
    )
