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
    """Return the body of a predict request with one instance, in TensorFlow Serving's row format."""
    inputs = {key: info for key, info in signature.inputs.items() if key not in signature.defaults}
    values = {key: _value(info) for key, info in inputs.items()}
    # With a single input its values stand alone.
    instance = next(iter(values.values())) if len(values) == 1 else values
    body = {} if name == SERVING_DEFAULT else {"signature_name": name}
    text = json.dumps({**body, "instances": [instance]}, ensure_ascii=False)
    return Example(text.replace(f'"{ELLIPSIS}"', ELLIPSIS), ELLIPSIS not in text)


def _value(info: TensorInfo) -> Any:
    sizes = [1 if size is None else size for size in (info.shape or (None,))[1:]]
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
