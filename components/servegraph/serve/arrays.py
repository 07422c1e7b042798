"""From JSON values to arrays: exact types, no ragged lists, nothing out of range; else a clear error.

numpy would convert silently (true to 1, 1 beside "2" to a string), so types are checked before it is asked.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

from servegraph.errors import RequestError
from servegraph.savedmodel.graph import TensorInfo

Array = npt.NDArray[Any]

# The types that JSON can carry; TF Serving does not take the others (resource, complex, quantized, …) either.
_FLOATS: Mapping[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}
_INTS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_KIND_NAMES = {
    type(None): "null",
    bool: "a boolean",
    int: "a whole number",
    float: "a decimal number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


class _Values(NamedTuple):
    """The values of nested lists, flat, with the set of their types."""

    name: str  # of the input, for messages
    shape: tuple[int, ...]
    leaves: list[Any]
    kinds: set[type]

    def where(self, index: int) -> str:
        """Return `Input 'x' at [row][column]` for the flat `index`."""
        return f"Input {self.name!r} at {_position(index, self.shape)}"


def to_array(value: Any, name: str, info: TensorInfo) -> Array:
    """Return the JSON `value` of the input `name` as an array of the type of `info`, shaped as it was sent.

    Raises:
        RequestError: ragged lists, or a value of another type or out of range.
    """
    values = _flatten(value, name)
    if info.encoding == "dense" and info.dtype in _FLOATS:
        array = _floats(values, info.dtype)
    elif info.encoding == "dense" and info.dtype in _INTS:
        array = _ints(values, info.dtype)
    elif info.encoding == "dense" and info.dtype == "bool":
        _require(values, {bool}, "true or false")
        array = np.array(values.leaves, dtype=np.bool_)
    elif info.encoding == "dense" and info.dtype == "string":
        array = _strings(values)
    else:
        raise RequestError(
            f"Input {name!r} is a {info.encoding} tensor of {info.dtype}, which JSON cannot carry.",
            code="UNIMPLEMENTED",
        )
    return array.reshape(values.shape)


def kind(value: Any) -> str:
    """Return what a JSON value is, for messages: `a list`, `a whole number`, …"""
    return _KIND_NAMES.get(type(value), type(value).__name__)


def _flatten(value: Any, name: str) -> _Values:
    """A level at a time: each pass is one of Python's C loops, and depth costs no stack."""
    shape: list[int] = []
    level = [value]
    kinds: set[type] = {type(value)}
    while kinds == {list}:
        lengths = set(map(len, level))
        if len(lengths) > 1:
            expected = len(level[0])
            index = next(i for i, inner in enumerate(level) if len(inner) != expected)
            raise RequestError(
                f"Input {name!r} is ragged: the list at {_position(index, shape)} has {len(level[index])} "
                f"elements, the ones before it {expected}."
            )
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
        kinds = set(map(type, level))
    if list in kinds:
        index = next(i for i, leaf in enumerate(level) if (type(leaf) is list) != (type(level[0]) is list))
        raise RequestError(
            f"Input {name!r} is ragged: {kind(level[index])} at {_position(index, shape)}, beside {kind(level[0])}."
        )
    return _Values(name, tuple(shape), level, kinds)


def _floats(values: _Values, dtype: str) -> Array:
    _require(values, {int, float}, "a number")
    wide = np.array(values.leaves, dtype=np.float64)
    if not values.leaves:
        return wide.astype(_FLOATS[dtype])
    limits: Any = ml_dtypes.finfo(_FLOATS[dtype])  # type: ignore[no-untyped-call]
    largest = float(np.abs(wide).max())
    if largest > float(limits.max):
        index = int(np.abs(wide).argmax())
        raise RequestError(f"{values.where(index)}: {values.leaves[index]} is out of range of {dtype}.")
    # TF Serving's rule (IsLosslessDecimal in json_tensor.cc): a whole number has to arrive as it was sent.
    exact_limit = 2 ** (limits.nmant + 1)
    if int in values.kinds and largest >= exact_limit:
        for index, leaf in enumerate(values.leaves):
            if type(leaf) is int and abs(leaf) >= exact_limit:
                raise RequestError(
                    f"{values.where(index)}: cannot convert {leaf} to {dtype} without loss of precision.",
                    fix=f"Write it as {leaf}.0 if the loss is meant.",
                )
    return wide.astype(_FLOATS[dtype])


def _ints(values: _Values, dtype: str) -> Array:
    _require(values, {int}, "a whole number")
    limits = np.iinfo(dtype)
    leaves = values.leaves
    if leaves and (min(leaves) < limits.min or max(leaves) > limits.max):
        index = next(i for i, leaf in enumerate(leaves) if not limits.min <= leaf <= limits.max)
        raise RequestError(f"{values.where(index)}: {leaves[index]} is out of range of {dtype}.")
    return np.array(leaves, dtype=dtype)


def _strings(values: _Values) -> Array:
    _require(values, {str, dict}, 'a string or {"b64": "…"}')
    array = np.empty(len(values.leaves), dtype=object)
    array[:] = [
        leaf.encode() if type(leaf) is str else _bytes(leaf, values, index) for index, leaf in enumerate(values.leaves)
    ]
    return array


def _bytes(value: dict[str, Any], values: _Values, index: int) -> bytes:
    if value.keys() != {"b64"} or not isinstance(value["b64"], str):
        raise RequestError(f'{values.where(index)}: an object here must be {{"b64": "…"}} and no more.')
    # Both alphabets, padded or not, as absl::Base64Unescape takes them.
    text = value["b64"].replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise RequestError(f"{values.where(index)}: unable to base64 decode.") from exc


def _require(values: _Values, allowed: set[type], want: str) -> None:
    if not values.kinds <= allowed:
        index = next(i for i, leaf in enumerate(values.leaves) if type(leaf) not in allowed)
        raise RequestError(f"{values.where(index)} must be {want}, not {kind(values.leaves[index])}.")


def _position(index: int, shape: Sequence[int]) -> str:
    """Return the position of the flat `index` as `[row][column]…`."""
    steps: list[int] = []
    for size in reversed(shape):
        index, step = divmod(index, size)
        steps.append(step)
    return "".join(f"[{step}]" for step in reversed(steps)) or "its only value"
