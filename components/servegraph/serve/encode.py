"""From the arrays of an answer to JSON, as `g3doc/api_rest.md` in tensorflow/serving has it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from servegraph.errors import Refusal
from servegraph.serve.arrays import Array
from servegraph.serve.decode import Rows

_BYTES_SUFFIX = "_bytes"  # TF Serving's convention: a string output of this name holds bytes, sent as base64


def encode(outputs: Mapping[str, Array], form: Rows) -> bytes:
    """Return the JSON of an answer, `predictions` by row or `outputs` by column; a lone output goes unnamed.

    Not-a-number and infinite values are written as the bare tokens that TF Serving writes.

    Raises:
        Refusal: outputs that this format cannot carry (code `INVALID_ARGUMENT`, `UNIMPLEMENTED` or
        `INTERNAL`).
    """
    if not outputs:
        raise Refusal(
            "Cannot convert empty tensor map to JSON: the signature has no outputs.",
            code="INVALID_ARGUMENT",
            fix="Export a signature that returns something, or ask another.",
        )
    ready = {name: _writable(name, array) for name, array in sorted(outputs.items())}
    text: bytes = orjson.dumps(_document(ready, form), option=orjson.OPT_SERIALIZE_NUMPY)
    # orjson writes null for a number that is not finite: without one of those there is no such number.
    if b"null" not in text or all(array.dtype.kind != "f" or np.isfinite(array).all() for array in ready.values()):
        return text
    ready = {name: shortest(array) if array.dtype.kind == "f" else array for name, array in ready.items()}
    return json.dumps(_document(ready, form), default=_plain, ensure_ascii=False).encode()


def _document(outputs: Mapping[str, Array], form: Rows) -> dict[str, Any]:
    return {"predictions": _rows(outputs)} if form == "row" else {"outputs": _columns(outputs)}


def _rows(outputs: Mapping[str, Array]) -> Any:
    sizes = {name: array.shape[0] if array.ndim else None for name, array in outputs.items()}
    if None in sizes.values() or len(set(sizes.values())) > 1:
        raise Refusal(
            f"The outputs have no common batch size ({sizes}), so they cannot be answered by row.",
            code="INVALID_ARGUMENT",
            fix="Ask by column: 'inputs' instead of 'instances'.",
        )
    if len(outputs) == 1:
        return _json_value(next(iter(outputs.values())))
    columns = [_json_value(array) if array.dtype == object else array for array in outputs.values()]
    return [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _columns(outputs: Mapping[str, Array]) -> Any:
    if len(outputs) == 1:
        return _json_value(next(iter(outputs.values())))
    return {name: _json_value(array) for name, array in outputs.items()}


def _json_value(array: Array) -> Any:
    """What orjson can write: numeric arrays and scalars, but neither arrays of objects nor of rank 0."""
    if array.dtype == object:
        return array.tolist()
    return array if array.ndim else array[()]


def _writable(name: str, array: Array) -> Array:
    """Return `array` with strings as JSON values and numbers of a type and order that orjson writes."""
    if array.dtype.kind in "OS":
        return _text(name, array)
    if array.dtype.kind in "biuf":
        return np.ascontiguousarray(array) if array.ndim else array
    if array.dtype.name.startswith(("bfloat16", "float8")):
        return array.astype(np.float32)
    raise Refusal(
        f"Output {name!r} has the type {array.dtype}, which JSON cannot carry.",
        code="UNIMPLEMENTED",
        fix="Export a signature whose outputs are numbers, booleans or strings.",
    )


def _text(name: str, array: Array) -> Array:
    out = np.empty(array.shape, dtype=object)
    values = [bytes(value) for value in array.reshape(-1).tolist()]
    if name.endswith(_BYTES_SUFFIX):
        out.reshape(-1)[:] = [{"b64": base64.b64encode(value).decode()} for value in values]
        return out
    try:
        out.reshape(-1)[:] = [value.decode() for value in values]
    except UnicodeDecodeError as exc:
        raise Refusal(
            f"Output {name!r} is not UTF-8 text.",
            code="INTERNAL",
            fix=f"Export it under a name that ends in {_BYTES_SUFFIX}: it is then sent as base64.",
        ) from exc
    return out


def shortest(array: Array) -> Array:
    """Return float64 values that print like the shorter type: 0.2 and not 0.20000000298023224."""
    return array if array.dtype == np.float64 else array.astype(np.str_).astype(np.float64)


def _plain(value: Any) -> Any:
    return value.tolist()
