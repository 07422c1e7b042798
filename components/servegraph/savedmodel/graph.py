"""What a `saved_model.pb` says, as values.

Sources: tensorflow/core/protobuf/saved_model.proto, meta_graph.proto, saver.proto; framework/graph.proto,
node_def.proto, attr_value.proto, function.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from servegraph.savedmodel.dtypes import dtype_name
from servegraph.savedmodel.wire import Malformed, fields, read_varint, signed, text

MAX_NESTING = 30  # of attributes in attributes; protobuf allows 100 messages, and each takes three
SERVING_TAG = "serve"  # of the MetaGraph that servers load
DEFAULT_SIGNATURE = "serving_default"
INIT_SIGNATURE = "__saved_model_init_op"
TRAIN_SIGNATURE = "__saved_model_train_op"
SUPERVISED = "tensorflow/supervised/"  # begins the method of an Estimator's signatures that train or evaluate

# None is a dimension of unknown size; a shape of None has an unknown number of dimensions.
Shape = tuple[int | None, ...] | None


class TensorInfo(NamedTuple):
    """One input or output of a signature. `tensors` are its names in the graph: one, unless it is encoded."""

    tensors: tuple[str, ...]
    dtype: str
    shape: Shape
    encoding: Literal["dense", "sparse", "composite"]


class Signature(NamedTuple):
    """One signature. `defaults` are the inputs a request may leave out, each with its value: an encoded TensorProto."""

    method_name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    defaults: Mapping[str, bytes] = {}

    @property
    def is_supervised(self) -> bool:
        """Whether it is one that an Estimator wrote to train or to evaluate: it takes labels."""
        return self.method_name.startswith(SUPERVISED)


class Saver(NamedTuple):
    """Which tensors and operations of the main graph save and restore the variables."""

    filename_tensor: str
    save_tensor: str
    restore_op: str


class Node(NamedTuple):
    """One operation of a graph. `attrs` are the encoded AttrValues; see `attr_*` below.

    `size_bytes` is the whole node; the attributes of a node above `graph_reader.MAX_NODE_BYTES` are left out,
    because such a node is a constant.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    device: str
    attrs: Mapping[str, bytes]
    size_bytes: int


class Body(NamedTuple):
    """The main graph (`name` is empty) or one function of the library.

    `ops` counts the nodes by operation, `calls` names the functions that any of them can call, `watched` are
    the nodes whose operation `ops.is_watched` names, `start` and `end` where it is in the file.
    """

    name: str
    node_count: int
    ops: Mapping[str, int]
    const_bytes: int
    calls: frozenset[str]
    watched: tuple[Node, ...]
    start: int
    end: int


class MetaGraph(NamedTuple):
    """One MetaGraph. `assets` maps the tensor that holds an asset's path to its file below `assets/`.

    `node_lists` are the collections that name tensors or operations, `exposed_functions` what Python's
    `tf.saved_model.load` offers beside the signatures, `loading_functions` what it runs by itself.
    """

    tags: tuple[str, ...]
    tf_version: str
    signatures: Mapping[str, Signature]
    saver: Saver | None
    assets: Mapping[str, str]
    node_lists: Mapping[str, tuple[str, ...]]
    collections: tuple[str, ...]
    main: Body
    functions: Mapping[str, Body]
    producer: int
    min_consumer: int
    has_object_graph: bool
    exposed_functions: tuple[str, ...]
    loading_functions: tuple[str, ...]
    declared_ops: tuple[str, ...]
    size_bytes: int


class SavedModelGraph(NamedTuple):
    """A whole `saved_model.pb` or `.pbtxt`; `path` says which."""

    path: str
    schema_version: int
    meta_graphs: tuple[MetaGraph, ...]
    size_bytes: int


def default_misfit(default: bytes, info: TensorInfo) -> str:
    """Return why a default, an encoded TensorProto, is no value of an input; empty where it may be one."""
    dtype = 0
    shape: Shape = ()
    for field in fields(default):
        if field.number == 1:
            dtype = field.value
        elif field.number == 2:
            shape = parse_shape(default, field.start, field.end)
    if dtype_name(dtype) != info.dtype:
        return f"is {dtype_name(dtype)}, and the input {info.dtype}"
    wanted = info.shape
    if shape is None or None in shape or (wanted is not None and not _is_of(shape, wanted)):
        have, want = (None if sizes is None else [*sizes] for sizes in (shape, wanted))
        return f"has the shape {have}, and the input {want}"
    return ""


def _is_of(shape: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (None, have) for have, want in zip(shape, wanted, strict=True))


def attr_bool(node: Node, name: str, default: bool) -> bool:
    """Return a bool attribute, `default` where the file leaves it out as the operation's default."""
    payload = node.attrs.get(name)
    if payload is None:
        return default
    return any(field.number == 5 and bool(field.value) for field in fields(payload))


def attr_bytes(node: Node, name: str) -> bytes | None:
    """Return a string attribute, or None where it is not there."""
    payload = node.attrs.get(name)
    if payload is not None:
        if len(payload) > 1 and payload[0] == 0x12 and payload[1] < 128 and len(payload) == 2 + payload[1]:
            return payload[2:]  # nothing but a short string, as thousands are
        for field in fields(payload):
            if field.number == 2:
                return payload[field.start : field.end]
    return None


def attr_functions(payload: bytes, depth: int = 0) -> list[str]:
    """Return the names of the functions that an encoded AttrValue refers to, alone or in a list.

    Raises:
        Malformed: it is damaged, or nested more deeply than protobuf allows.
    """
    if depth > MAX_NESTING:
        raise Malformed("an attribute is nested too deeply")
    names = []
    for field in fields(payload):
        if field.number == 10:
            names += _function_names(payload, field.start, field.end, depth)
        elif field.number == 1:
            for inner in fields(payload, field.start, field.end):
                if inner.number == 9:
                    names += _function_names(payload, inner.start, inner.end, depth)
    return names


def _function_names(payload: bytes, start: int, end: int, depth: int) -> list[str]:
    """A NameAttrList: the function's name, and attributes that may name further ones."""
    names = []
    for field in fields(payload, start, end):
        if field.number == 1:
            names.append(text(payload, field))
        elif field.number == 2:
            for entry in fields(payload, field.start, field.end):
                if entry.number == 2:
                    names += attr_functions(payload[entry.start : entry.end], depth + 1)
    return names


def attr_type(node: Node, name: str) -> str | None:
    """Return the name of a type, such as the `dtype` of a variable, or None where it is not there."""
    for field in fields(node.attrs.get(name, b"")):
        if field.number == 6:
            return dtype_name(int(field.value))
    return None


def attr_types(node: Node, name: str) -> list[str]:
    """Return a list of types, such as the `dtypes` of RestoreV2; empty where it is not there."""
    payload = node.attrs.get(name, b"")
    types = []
    for field in fields(payload):
        if field.number == 1:
            for item in fields(payload, field.start, field.end):
                if item.number == 6 and item.end:  # packed
                    position = item.start
                    while position < item.end:
                        number, position = read_varint(payload, position)
                        types.append(dtype_name(number))
                elif item.number == 6:
                    types.append(dtype_name(item.value))
    return types


def attr_strings(node: Node) -> list[bytes] | None:
    """Return the elements of a string constant, or None where `node` is no (small) string constant."""
    payload = node.attrs.get("value")
    if node.op != "Const" or payload is None:
        return None
    for field in fields(payload):
        if field.number == 8:
            return tensor_strings(payload[field.start : field.end])
    return None


def tensor_strings(tensor: bytes) -> list[bytes] | None:
    """Return the elements of a string TensorProto, or None where it is of another type.

    A tensor of equal elements stores one of them: the result is then shorter than the tensor.
    """
    dtype, values = 0, []
    for field in fields(tensor):
        if field.number == 1:
            dtype = field.value
        elif field.number == 8:
            values.append(tensor[field.start : field.end])
    return values if dtype_name(dtype) == "string" else None


def parse_shape(buffer: bytes, start: int, end: int) -> Shape:
    """Read a TensorShapeProto."""
    sizes: list[int | None] = []
    for field in fields(buffer, start, end):
        if field.number == 2:
            size: int | None = 0
            for inner in fields(buffer, field.start, field.end):
                if inner.number == 1:
                    size = signed(inner.value)
            sizes.append(None if size is None or size < 0 else size)
        elif field.number == 3 and field.value:
            return None
    return tuple(sizes)
