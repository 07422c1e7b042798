"""From JSON values to arrays: exact types, no ragged lists, nothing out of range; else a clear error.

numpy would convert silently (true to 1, 1 beside "2" to a string), so types are checked before it is asked.
"""

from __future__ import annotations

import base64
import binascii
import functools
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
_largest, _smallest = np.maximum.reduce, np.minimum.reduce  # as `array.max()`, without the way there
_MAX_RANK = 64  # numpy's
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


def to_array(value: Any, name: str, info: TensorInfo, *, has_numbers_only: bool = False) -> Array:
    """Return the JSON `value` of the input `name` as an array of the type of `info`, shaped as it was sent.

    With `has_numbers_only` the caller vouches that no text, boolean or null is among the values, which lets numpy
    look at each of them once.

    Raises:
        RequestError: ragged lists, or a value of another type or out of range.
    """
    if has_numbers_only and info.encoding == "dense":
        array = numbers(value, info.dtype)
        if array is not None:
            return array
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
            fix="Ask a signature whose inputs are dense: numbers, booleans or strings.",
        )
    return array.reshape(values.shape)


def numbers(value: Any, dtype: str) -> Array | None:
    """Return numbers, in lists or an array, as an array of `dtype`; None where one of them needs a closer look."""
    try:
        if dtype in _FLOATS:
            wide: Array = np.asarray(value, dtype=np.float64)
            limit = _exact_limit(dtype)
            # NaN compares as False: it goes the long way.
            if not wide.size or not (_largest(wide, None) < limit and _smallest(wide, None) > -limit):
                return None
            return wide.astype(_FLOATS[dtype])
        if dtype in _INTS:
            found: Array = np.asarray(value)
            limits = np.iinfo(dtype)
            if found.dtype != np.int64 or not found.size or found.min() < limits.min or found.max() > limits.max:
                return None
            return found.astype(dtype)
    except (ValueError, TypeError, OverflowError):  # ragged, or a number that does not fit
        pass
    return None


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
                f"elements, the ones before it {expected}.",
                fix="Make the lists of each level equally long.",
            )
        shape.append(lengths.pop())
        if len(shape) > _MAX_RANK:
            raise RequestError(
                f"Input {name!r} is nested more than {_MAX_RANK} lists deep.",
                fix="Nest the lists as deep as the shape in the signature.",
            )
        level = list(chain.from_iterable(level))
        kinds = set(map(type, level))
    if list in kinds:
        index = next(i for i, leaf in enumerate(level) if (type(leaf) is list) != (type(level[0]) is list))
        raise RequestError(
            f"Input {name!r} is ragged: {kind(level[index])} at {_position(index, shape)}, beside {kind(level[0])}.",
            fix="Write only lists or only values on each level.",
        )
    return _Values(name, tuple(shape), level, kinds)


def _floats(values: _Values, dtype: str) -> Array:
    _require(values, {int, float}, "a number")
    wide = np.array(values.leaves, dtype=np.float64)
    if not values.leaves:
        return wide.astype(_FLOATS[dtype])
    limits: Any = ml_dtypes.finfo(_FLOATS[dtype])  # type: ignore[no-untyped-call]
    sizes = np.where(np.isfinite(wide), np.abs(wide), 0)  # NaN and the infinities are values of every float
    largest = float(sizes.max())
    if largest > float(limits.max):
        index = int(sizes.argmax())
        raise RequestError(
            f"{values.where(index)}: {values.leaves[index]} is out of range of {dtype}.",
            fix=f"Send a number that a {dtype} can hold.",
        )
    exact_limit = _exact_limit(dtype)
    if int in values.kinds and largest >= exact_limit:
        for index, leaf in enumerate(values.leaves):
            if type(leaf) is int and abs(leaf) >= exact_limit:
                raise RequestError(
                    f"{values.where(index)}: cannot convert {leaf} to {dtype} without loss of precision.",
                    fix=f"Write it as {leaf}.0 if the loss is meant.",
                )
    return wide.astype(_FLOATS[dtype])


@functools.cache
def _exact_limit(dtype: str) -> int:
    """Return the first whole number that TF Serving does not take for a float: one has to arrive as it was sent.

    Source: IsLosslessDecimal in json_tensor.cc.
    """
    limits: Any = ml_dtypes.finfo(_FLOATS[dtype])  # type: ignore[no-untyped-call]
    return int(2 ** (limits.nmant + 1))


def _ints(values: _Values, dtype: str) -> Array:
    _require(values, {int}, "a whole number")
    limits = np.iinfo(dtype)
    leaves = values.leaves
    if leaves and (min(leaves) < limits.min or max(leaves) > limits.max):
        index = next(i for i, leaf in enumerate(leaves) if not limits.min <= leaf <= limits.max)
        raise RequestError(
            f"{values.where(index)}: {leaves[index]} is out of range of {dtype}.",
            fix=f"Send a number from {limits.min} to {limits.max}.",
        )
    return np.array(leaves, dtype=dtype)


def _strings(values: _Values) -> Array:
    _require(values, {str, dict}, 'a string or {"b64": "…"}')
    array = np.empty(len(values.leaves), dtype=object)
    array[:] = [
        leaf.encode() if type(leaf) is str else bytes_of(leaf, values.where(index))
        for index, leaf in enumerate(values.leaves)
    ]
    return array


def bytes_of(value: dict[str, Any], where: str) -> bytes:
    """Return what `{"b64": "…"}` holds. Raises `RequestError`, naming `where`, for any other object."""
    if value.keys() != {"b64"} or not isinstance(value["b64"], str):
        raise RequestError(
            f'{where}: an object here must be {{"b64": "…"}} and no more.',
            fix='Send bytes as {"b64": "…"}, and a text as it is.',
        )
    # Both alphabets, padded or not, as absl::Base64Unescape takes them.
    text = value["b64"].replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise RequestError(
            f"{where}: unable to base64 decode.",
            fix="Encode the bytes in base64, with the standard alphabet or that for URLs.",
        ) from exc


def _require(values: _Values, allowed: set[type], want: str) -> None:
    if not values.kinds <= allowed:
        index = next(i for i, leaf in enumerate(values.leaves) if type(leaf) not in allowed)
        raise RequestError(
            f"{values.where(index)} must be {want}, not {kind(values.leaves[index])}.",
            fix="The types of the inputs are in the answer to GET /v1/models/NAME/metadata.",
        )


def _position(index: int, shape: Sequence[int]) -> str:
    """Return the position of the flat `index` as `[row][column]…`."""
    steps: list[int] = []
    for size in reversed(shape):
        index, step = divmod(index, size)
        steps.append(step)
    return "".join(f"[{step}]" for step in reversed(steps)) or "its only value"
