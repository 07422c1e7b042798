"""What a MetaGraph restores, as values: which tensors of the files go into which variable or table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.rewriting.blocks import Blocks
from servegraph.rewriting.contents import Content
from servegraph.rewriting.forms import Form, Part, add, constant, enum
from servegraph.rewriting.graph import Nodes

VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}


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
    form: Form | Blocks | None

    def parts(self, tensor: StoredTensor) -> list[tuple[str, int]]:
        """(checkpoint key, dtype enum) of each tensor that is read for `tensor`."""
        if tensor.part is not None:
            return [(f"{self.name}{tensor.part.suffix}", tensor.dtype)]
        if self.form is None:
            return [(self.name, tensor.dtype)]
        return self.named(self.form.parts)

    def named(self, parts: Iterable[Part]) -> list[tuple[str, int]]:
        """(checkpoint key, dtype enum) of these parts."""
        return [(f"{self.name}{part.suffix}", enum(part.dtype)) for part in parts]


@dataclass(frozen=True)
class Restore:
    """Stored tensors put into the resource of node `handle` by `put`, a NodeDef whose inputs do not count."""

    handle: str
    tensors: tuple[StoredTensor, ...]
    put: NodeDef


def shared_name_of(name: str) -> bytes:
    """Return a shared name for a new variable that none of a model has; `name_resources` gives another when written."""
    return b"servegraph:" + name.encode()


def variable(nodes: Nodes, name: str, key: str, like: Content | Part, device: str = "") -> Restore:
    """Add a variable of the dtype and shape of `like` that is read at `name`; return its restore from `key`."""
    dtype = enum(like.dtype)
    handle = add(nodes, f"{name}/handle", "VarHandleOp")
    handle.attr["dtype"].type = dtype
    handle.attr["shape"].shape.CopyFrom(tf.TensorShape(like.shape).as_proto())
    handle.attr["shared_name"].s = shared_name_of(name)
    read = add(nodes, name, "ReadVariableOp", handle.name)
    read.attr["dtype"].type = dtype
    handle.device = read.device = device
    put = NodeDef(op="AssignVariableOp")
    put.attr["dtype"].type = dtype
    return Restore(handle.name, (StoredTensor(key, "", dtype),), put)


def read(
    nodes: Nodes, name: str, filename: str, parts: Sequence[tuple[str, int, str]], after: NodeDef | None
) -> list[str]:
    """Add a RestoreV2 of these parts (key, dtype enum, slice) that runs after another node; return its outputs."""
    if not parts:  # all of them are forms that need nothing from the files
        return []
    keys, dtypes, specs = zip(*parts, strict=True)
    slices = constant(nodes, f"{name}/slices", specs, "string")
    node = add(nodes, name, "RestoreV2", filename, constant(nodes, f"{name}/keys", keys, "string"), slices)
    node.attr["dtypes"].list.type.extend(dtypes)
    run_after(node, after)
    return [f"{name}:{index}" for index in range(len(parts))]


def run_after(node: NodeDef, after: NodeDef | None) -> None:
    """Let a node run once another has, if there is one."""
    if after is not None:
        node.input.append(f"^{after.name}")
