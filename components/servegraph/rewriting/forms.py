"""Forms in which a tensor can be stored: smaller on disk, turned back once, while the model is restored.

Serving computes with the same types as before, so a stored form costs no latency, and only standard operations read
it back. A form is planned for one tensor: what depends on the values (scales, how far they will be off) is known then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.rewriting.contents import Content, numpy_of, size_bytes, typed_rows
from servegraph.rewriting.graph import Nodes
from servegraph.savedmodel.bundle_reader import BundleReader

HALVES = ("float16", "bfloat16")
FLOATS = ("float64", "float32", *HALVES)
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_FLOAT16_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)
# What is turned back may be a little larger than what was stored; beyond this that could be infinite.
MOST = {"float16": _FLOAT16_MAX, "bfloat16": 2.0**127, "float32": 2.0**127}
_HALF_STEP = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}  # of a value, when rounded to nearest


class Part(NamedTuple):
    """A tensor that is stored for another: its key is that one's with `suffix` behind."""

    suffix: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return prod(self.shape) * numpy_of(self.dtype).itemsize

    @property
    def has_rows(self) -> bool:
        """Whether its first dimension goes along the rows of the matrix that it is stored for."""
        return len(self.shape) > 1


class Shaped(Protocol):
    """A tensor of which only this is known."""

    @property
    def dtype(self) -> str:
        """TensorFlow's name of the dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""


class Form(Protocol):
    """How one tensor is stored. `noise` is the expected mean of (value read back - value)², 0 where none is lost."""

    @property
    def name(self) -> str:
        """What it is called in reports."""

    @property
    def noise(self) -> float:
        """Mean squared error of the values."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The tensors that are stored for it."""

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk of all parts."""

    def stored(self, content: Content, tensors: BundleReader | None) -> Iterable[Iterator[bytes]]:
        """Yield the bytes of each part."""

    def decode(self, nodes: Nodes, name: str, stored: list[str], content: Shaped) -> str:
        """Add nodes below `name` that turn the stored parts back; return the tensor that they end in."""


@runtime_checkable
class RowForm(Form, Protocol):
    """A form of which some rows of a matrix can be turned back without the others."""

    def leading(self, row: int, width: int) -> int:
        """Where row `row` of a matrix of this width begins along the first dimension of the parts that have rows."""

    def of_rows(self, start: int, shape: tuple[int, ...]) -> Form:
        """Return the form of a block of this shape, from row `start` on, as it is turned back."""

    def beside_bytes(self, content: Content) -> int:
        """About what turning back the whole takes beside the result."""


_Own = TypeVar("_Own", bound="Elementwise")


class Elementwise:
    """What forms whose parts have the shape of the tensor, or scales for its rows or columns, share."""

    parts: tuple[Part, ...]

    def leading(self, row: int, _width: int) -> int:
        """A row is a row."""
        return row

    def of_rows(self: _Own, _start: int, _shape: tuple[int, ...]) -> _Own:
        """Rows are turned back as all are."""
        return self

    def beside_bytes(self, _content: Content) -> int:
        """What is stored, until it is turned back."""
        return self.stored_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk of all parts."""
        return sum(part.size_bytes for part in self.parts)


@dataclass(frozen=True)
class Cast(Elementwise):
    """Stored as another dtype, element by element: float16, bfloat16, or integers that hold every value."""

    name: str
    noise: float
    parts: tuple[Part, ...]

    def stored(self, content: Content, tensors: BundleReader | None) -> Iterable[Iterator[bytes]]:
        """Yield the bytes of the only part."""
        dtype = numpy_of(self.name)
        yield (rows.astype(dtype).tobytes() for rows in typed_rows(content, tensors, 1))

    def decode(self, nodes: Nodes, name: str, stored: list[str], content: Shaped) -> str:
        """Cast it back."""
        return cast(nodes, f"{name}/as_stored", stored[0], self.name, content.dtype)


def plan_half(content: Content, tensors: BundleReader | None) -> Form | None:
    """Store a float as float16; as bfloat16 where float16 cannot hold its range; float64 as float32.

    None where a value is not finite, or not with less range: nothing is known then of what a smaller form would do.
    """
    if content.dtype not in ("float32", "float64"):
        return None
    largest, total, tiny, count = 0.0, 0.0, 0, 0
    for rows in typed_rows(content, tensors, 1):
        magnitudes = np.abs(rows)
        largest = max(largest, float(magnitudes.max(initial=0)))
        with np.errstate(over="ignore"):  # an infinite sum is refused below
            total += float(np.square(rows, dtype=np.float64).sum())
        tiny += int(((magnitudes < _FLOAT16_SMALLEST_NORMAL) & (magnitudes > 0)).sum())
        count += rows.size
    if not np.isfinite(total):
        return None
    name = "float16"
    # float16 rounds numbers below 6e-5 ever more coarsely: where most are, bfloat16 is nearer.
    if largest > _FLOAT16_MAX or tiny > count / 2:
        name = "bfloat16"
    if content.dtype == "float64":
        name = "float32"
    if largest > MOST[name]:
        return None
    noise = total / max(count, 1) * _HALF_STEP[name] ** 2 / 3
    return Cast(name, noise, (Part("", name, content.shape),))


def plan_narrow(content: Content, tensors: BundleReader | None) -> Form | None:
    """Store integers in the smallest type that holds every one of them; None where that is their own."""
    own = numpy_of(content.dtype)
    if own.kind not in "iu":
        return None
    least, most = 0, 0
    for rows in typed_rows(content, tensors, 1):
        least, most = min(least, int(rows.min())), max(most, int(rows.max()))
    for name in ("int8", "uint8", "int16", "uint16", "int32"):
        range_ = np.iinfo(name)
        if range_.min <= least and most <= range_.max and np.dtype(name).itemsize < own.itemsize:
            return Cast(name, 0.0, (Part("", name, content.shape),))
    return None


Planner = Callable[[Content, "BundleReader | None"], "Form | None"]


def cast(nodes: Nodes, name: str, tensor: str, source: str, target: str) -> str:
    """Add a Cast and return its output."""
    node = add(nodes, name, "Cast", tensor)
    node.attr["SrcT"].type, node.attr["DstT"].type = enum(source), enum(target)
    return name


def binary(nodes: Nodes, name: str, op: str, one: str, other: str, dtype: str = "float32") -> str:
    """Add an operation of two tensors of one type and return its output."""
    add(nodes, name, op, one, other).attr["T"].type = enum(dtype)
    return name


def constant(nodes: Nodes, name: str, values: Any, dtype: str) -> str:
    """Add a constant and return its output."""
    proto = tf.make_tensor_proto(values, dtype=tf.as_dtype(dtype))
    node = add(nodes, name, "Const")
    node.attr["dtype"].type = proto.dtype
    node.attr["value"].tensor.CopyFrom(proto)
    return name


def is_zero_bias(values: NDArray[Any]) -> bool:
    """Whether these are to be no constant: a bias of zeros, as an untrained model has it.

    TensorFlow would take it out, and without a bias it fuses no activation with the product before it.
    """
    return values.ndim == 1 and values.size > 1 and not values.any()


def reshaped(nodes: Nodes, name: str, tensor: str, shape: Iterable[int], dtype: str) -> str:
    """Add a Reshape and return its output."""
    node = add(nodes, name, "Reshape", tensor, constant(nodes, f"{name}/shape", list(shape), "int64"))
    node.attr["T"].type, node.attr["Tshape"].type = enum(dtype), enum("int64")
    return name


def add(nodes: Nodes, name: str, op: str, *inputs: str) -> NodeDef:
    """Add a node and return it."""
    node = nodes[name] = NodeDef(name=name, op=op, input=inputs)
    return node


def enum(dtype: str) -> int:
    """Return TensorFlow's number of a dtype."""
    number: int = tf.as_dtype(dtype).as_datatype_enum
    return number


def as_float(nodes: Nodes, name: str, tensor: str, dtype: str) -> str:
    """Return float32 as another type of floats, through a Cast where that is another."""
    return tensor if dtype == "float32" else cast(nodes, f"{name}/cast", tensor, "float32", dtype)


def saves(form: Form | None, content: Content) -> bool:
    """Whether a form is smaller than the tensor itself."""
    return form is not None and form.stored_bytes < size_bytes(content)
