"""Arrays as JSON values and back: nested lists, bytes that are not UTF-8 as {"b64": …} as in TF Serving's REST API.

What `to_json` wrote, `from_json` reads back as the same bits.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.dtypes import is_float, is_text


def is_holdable(values: NDArray[Any]) -> bool:
    """Whether JSON can hold the values: no complex numbers, no NaN, no infinity."""
    if is_float(values.dtype):
        with np.errstate(invalid="ignore"):  # a signalling NaN of bfloat16
            return bool(np.isfinite(values).all())
    return values.dtype.kind != "c"


def to_json(values: NDArray[Any]) -> Any:
    """Return holdable values as nested lists of numbers or text; float32 has the shortest text that is exact."""
    if is_text(values.dtype):
        return _texts(values.tolist())
    if values.dtype == np.float32:
        # Each value is written once: of the pixels of an image few are different. By its bits, which tell -0.0 from 0.
        bits, places = np.unique(np.ascontiguousarray(values).view(np.int32), return_inverse=True)
        exact = np.array([float(str(value)) for value in bits.view(np.float32)])
        return exact[places].reshape(values.shape).tolist()
    return values.tolist()


def from_json(values: Any, kind: np.dtype[Any]) -> NDArray[Any]:
    """Return nested lists as an array of a type that holds each value; text as bytes in an array of objects.

    Raises:
        ValueError: a value is of another kind or out of range, lists have different lengths.
    """
    if is_text(kind):
        shape = lengths(values)
        flat: list[bytes] = []
        _flatten(values, shape, flat)
        texts: NDArray[Any] = np.empty(len(flat), dtype=np.object_)
        texts[:] = flat
        return texts.reshape(shape)
    if kind.kind == "c":
        raise ValueError("JSON has no complex numbers")
    plain: NDArray[Any] = np.array(values)
    if plain.dtype.kind not in "biuf":
        raise ValueError("there is a value that is no number")
    with np.errstate(over="ignore", invalid="ignore"):
        if is_float(kind):
            array = plain.astype(kind)
            held = np.isfinite(array) | ~np.isfinite(plain)
        else:
            try:
                array = np.array(values, dtype=kind)  # not from `plain`, which is float64 for [0, 2**64 - 1]
            except OverflowError:
                raise ValueError(f"not all of {plain.min()} to {plain.max()} is in its range") from None
            held = (array.astype(plain.dtype) == plain) & ((array < 0) == (plain < 0))
    if not held.all():
        raise ValueError(f"it cannot hold {plain[~held].flat[0]}")
    return array


def lengths(value: Any) -> tuple[int, ...]:
    """Return the shape of nested lists, as far as their first elements tell."""
    if not isinstance(value, list):
        return ()
    return (len(value), *(lengths(value[0]) if value else ()))


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode("ascii")}
    return value


def _flatten(value: Any, shape: tuple[int, ...], flat: list[bytes]) -> None:
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            raise ValueError("its lists have different lengths")
        for item in value:
            _flatten(item, shape[1:], flat)
    elif isinstance(value, str):
        flat.append(value.encode("utf-8"))
    elif isinstance(value, bytes):
        flat.append(value)
    elif isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        flat.append(_decoded(value["b64"]))
    else:
        raise ValueError(f"{json.dumps(value, default=str)[:50]} is no text")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError(f"{text[:50]!r} is not base64: {exc}") from exc
