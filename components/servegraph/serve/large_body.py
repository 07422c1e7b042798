"""Large requests that are one array of numbers: read without making an object of each number.

simdjson gives the numbers of nested lists as one flat buffer and says nothing of the lists; where they begin and end is
counted in the text. Whatever is not exactly such a request is left to the usual way, which is slower and knows what to
say: text, booleans, null, ragged lists, numbers that do not fit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from servegraph.savedmodel.graph import TensorInfo
from servegraph.serve.arrays import Array, numbers

LARGE_BODY_BYTES = 16 << 10  # below, orjson and numpy take about as long

simdjson: Any
try:
    import simdjson
except ImportError:  # no wheel for this platform
    simdjson = None

_COMMA = ord(",")
_OF_NUMBERS = b"0123456789+-.eE \t\r\n"
_KEYS = ("instances", "inputs")


class LargeBody:
    """A parsed body: its array under `key`, and the name of its signature if it gives one."""

    def __init__(self, body: bytes, key: str, signature_name: str | None, value: Any) -> None:
        """Keep the text and simdjson's view of the array."""
        self.key = key
        self.signature_name = signature_name
        self._body = body
        self._value = value

    def array(self, info: TensorInfo) -> Array | None:
        """Return the numbers as an array of the type of `info`, None where the usual way must look at them."""
        if info.encoding != "dense" or info.dtype in ("bool", "string"):
            return None
        kind = "i" if info.dtype.lstrip("u").startswith("int") else "d"
        try:
            buffer = self._value.as_buffer(of_type=kind)
        except (TypeError, ValueError, RuntimeError):  # text, booleans, null, or decimals where whole numbers go
            return None
        flat: Array = np.frombuffer(buffer, dtype=np.int64 if kind == "i" else np.float64)
        shape = _shape(self._body, flat.size)
        array = numbers(flat, info.dtype)
        return None if shape is None or array is None else array.reshape(shape)


def read_large_body(body: bytes) -> LargeBody | None:
    """Return `body` parsed, None where it is not an object of one list and at most the name of a signature."""
    if simdjson is None:
        return None
    try:
        document = simdjson.Parser().parse(body)
        if not isinstance(document, simdjson.Object):
            return None
        keys = list(document.keys())
        (key,) = (found for found in keys if found in _KEYS)
        rest = [found for found in keys if found != key]
        if rest not in ([], ["signature_name"]):
            return None
        name = document["signature_name"] if rest else None
        value = document[key]
    except (ValueError, RuntimeError, TypeError, UnicodeDecodeError, KeyError):
        return None
    plain_name = name is None or (isinstance(name, str) and not set(name) & set(",[]\\"))
    return LargeBody(body, key, name, value) if plain_name and isinstance(value, simdjson.Array) else None


def _shape(body: bytes, size: int) -> tuple[int, ...] | None:
    """Return the shape of the only list in `body`, None where it is ragged. `size` is how many numbers it holds.

    The first list of each depth says how long all of that depth should be; what they then look like without their
    numbers is written down and compared.
    """
    text = body[body.index(b"[") : body.rindex(b"]") + 1]
    inner = text.strip(b"[] \t\r\n")
    commas = int(np.count_nonzero(np.frombuffer(inner, np.uint8) == _COMMA))
    if b"[" not in inner and b"]" not in inner and commas + 1 == size:  # an empty list would add a comma, no number
        opened = text[: len(text) - len(text.lstrip(b"[ \t\r\n"))].count(b"[")
        return (*[1] * (opened - 1), size)  # a single row, mostly: nothing to compare
    marks = text.translate(None, _OF_NUMBERS)
    depth = len(marks) - len(marks.lstrip(b"["))
    expected = b""
    shape: tuple[int, ...] = ()
    for level in range(1, depth + 1):  # from the innermost
        first = marks[depth - level : marks.find(b"]" * level) + level]
        length = (len(first) - 1) // (len(expected) + 1)
        expected = b"[%b]" % ((expected + b",") * length)[:-1]
        shape = (length, *shape)
    return shape if marks == expected and math.prod(shape) == size else None
