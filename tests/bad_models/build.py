"""Writes SavedModels field by field, as no library would: what hostile files are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from servegraph.savedmodel.dtypes import BY_NAME
from servegraph.savedmodel.wire import encode_bytes, encode_number

STRING, FLOAT = BY_NAME["string"].number, BY_NAME["float32"].number


class Hostile(NamedTuple):
    """A model that is built with this module: what it tries, and the code of the answer."""

    name: str
    make: Callable[[Path], None]
    code: str


def entry(key: str, value: bytes) -> bytes:
    """A map's entry."""
    return encode_bytes(1, key.encode()) + encode_bytes(2, value)


def attr(key: str, value: bytes) -> bytes:
    """An attribute of a node; `value` is an AttrValue."""
    return encode_bytes(5, entry(key, value))


def calls(function: str) -> bytes:
    """An attribute that names a function."""
    return attr("f", encode_bytes(10, encode_bytes(1, function.encode())))


def node(name: str, op: str, inputs: Iterable[str] = (), *attrs: bytes) -> bytes:
    """A NodeDef."""
    content = encode_bytes(1, name.encode()) + encode_bytes(2, op.encode())
    content += b"".join(encode_bytes(3, reference.encode()) for reference in inputs)
    return content + b"".join(attrs)


def string_constant(name: str, value: bytes) -> bytes:
    """A Const of one string."""
    tensor = encode_number(1, STRING) + encode_bytes(2, b"") + encode_bytes(8, value)
    return node(name, "Const", (), attr("dtype", encode_number(6, STRING)), attr("value", encode_bytes(8, tensor)))


def function(name: str, nodes: Iterable[bytes], arguments: Iterable[str] = ()) -> bytes:
    """A FunctionDef."""
    signature = encode_bytes(1, name.encode())
    signature += b"".join(encode_bytes(2, encode_bytes(1, argument.encode())) for argument in arguments)
    return encode_bytes(1, signature) + b"".join(encode_bytes(3, content) for content in nodes)


def graph(nodes: Iterable[bytes], functions: Iterable[bytes] = ()) -> bytes:
    """A GraphDef."""
    library = b"".join(encode_bytes(1, content) for content in functions)
    return b"".join(encode_bytes(1, content) for content in nodes) + encode_bytes(2, library)


def tensor_info(tensor: str, dtype: int = STRING, sizes: Iterable[int] = (-1,)) -> bytes:
    """A TensorInfo."""
    shape = b"".join(encode_bytes(2, encode_number(1, size)) for size in sizes)
    return encode_bytes(1, tensor.encode()) + encode_number(2, dtype) + encode_bytes(3, shape)


def signature(inputs: dict[str, bytes], outputs: dict[str, bytes]) -> bytes:
    """A SignatureDef for the predict route."""
    content = b"".join(encode_bytes(1, entry(key, info)) for key, info in inputs.items())
    content += b"".join(encode_bytes(2, entry(key, info)) for key, info in outputs.items())
    return content + encode_bytes(3, b"tensorflow/serving/predict")


def saved_model(graph_def: bytes, *more: bytes, tags: Iterable[str] = ("serve",)) -> bytes:
    """A SavedModel with one MetaGraph whose signature takes `x` and returns the node `y`."""
    info = b"".join(encode_bytes(4, tag.encode()) for tag in tags) + encode_bytes(5, b"2.21.0")
    default = signature({"x": tensor_info("x:0")}, {"y": tensor_info("y:0")})
    meta_graph = encode_bytes(1, info) + encode_bytes(2, graph_def)
    meta_graph += encode_bytes(5, entry("serving_default", default)) + b"".join(more)
    return encode_number(1, 1) + encode_bytes(2, meta_graph)


def placeholder(name: str = "x") -> bytes:
    """A Placeholder of strings."""
    return node(name, "Placeholder", (), attr("dtype", encode_number(6, STRING)))


def write(path: Path, content: bytes) -> None:
    """Write a directory that holds nothing but a graph."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "saved_model.pb").write_bytes(content)
