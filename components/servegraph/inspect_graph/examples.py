"""Requests to copy: the JSON that a signature takes, with a value of the right type in every place."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from servegraph.inspect_graph.signatures import SERVING_DEFAULT
from servegraph.savedmodel.graph import Signature, TensorInfo

MAX_VALUES = 256  # an example with more, such as an image, is shortened
ELLIPSIS = "…"


class Example(NamedTuple):
    """The text of a request; `is_whole` is False where it is shortened and has to be filled up."""

    text: str
    is_whole: bool


def request_example(name: str, signature: Signature) -> Example:
    """Return the body of a predict request: one instance in TensorFlow Serving's row format, else by column."""
    inputs = {key: info for key, info in signature.inputs.items() if key not in signature.defaults}
    by_row = all(map(_has_batch, (*signature.inputs.values(), *signature.outputs.values())))
    values = {key: _value(info, by_row=by_row) for key, info in inputs.items()}
    # With a single input its values stand alone.
    asked = next(iter(values.values())) if len(values) == 1 else values
    body = {} if name == SERVING_DEFAULT else {"signature_name": name}
    text = json.dumps({**body, **({"instances": [asked]} if by_row else {"inputs": asked})}, ensure_ascii=False)
    return Example(text.replace(f'"{ELLIPSIS}"', ELLIPSIS), ELLIPSIS not in text)


def _has_batch(info: TensorInfo) -> bool:
    """Tell whether rows of a tensor can be asked one by one."""
    return info.shape is None or (len(info.shape) > 0 and info.shape[0] is None)


def _value(info: TensorInfo, *, by_row: bool) -> Any:
    shape = info.shape or ()
    sizes = [1 if size is None else size for size in (shape[1:] if by_row else shape)]
    values = 1
    for size in sizes:
        values *= size
    return _filled(sizes, _element(info.dtype), shorten=values > MAX_VALUES)


def _filled(sizes: list[int], element: Any, *, shorten: bool) -> Any:
    if not sizes:
        return element
    inner = _filled(sizes[1:], element, shorten=shorten)
    return [inner, ELLIPSIS] if shorten and sizes[0] > 2 else [inner] * sizes[0]


def _element(dtype: str) -> Any:
    if dtype == "string":
        return "text"
    if dtype == "bool":
        return False
    return 0 if "int" in dtype else 0.0
