"""Requests to copy: the JSON that a signature takes, with a value of the right type in every place."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

from servegraph.savedmodel.graph import DEFAULT_SIGNATURE, Signature, TensorInfo

MAX_VALUES = 256  # an example with more, such as an image, is shortened where it is shown,
MAX_COPIED_VALUES = 4_000_000  # and one with more is never whole: a browser's clipboard has its limits
ELLIPSIS = "…"


class Example(NamedTuple):
    """A request: its `text`, in which long lists are shortened, and if so a `recipe` that makes the whole of it.

    A recipe is the request in which `{"sizes": [28, 28], "of": 0.0}` stands for nested lists of these sizes. It is
    empty where the text is whole already, or the whole of it would be too much.
    """

    text: str
    recipe: str

    @property
    def is_whole(self) -> bool:
        """Tell whether the text can be sent as it is."""
        return ELLIPSIS not in self.text


def request_example(name: str, signature: Signature) -> Example:
    """Return the body of a predict request: one instance in TensorFlow Serving's row format, else by column."""
    inputs = {key: info for key, info in signature.inputs.items() if key not in signature.defaults}
    by_row = all(map(_has_batch, (*signature.inputs.values(), *signature.outputs.values())))
    sizes = {key: _sizes(info, by_row=by_row) for key, info in inputs.items()}

    def request(value: Callable[[list[int], Any], Any]) -> str:
        values = {key: value(sizes[key], _element(info.dtype)) for key, info in inputs.items()}
        asked = next(iter(values.values())) if len(values) == 1 else values  # a single input's values stand alone
        body = {} if name == DEFAULT_SIGNATURE else {"signature_name": name}
        return json.dumps({**body, **({"instances": [asked]} if by_row else {"inputs": asked})}, ensure_ascii=False)

    text = request(_shortened).replace(f'"{ELLIPSIS}"', ELLIPSIS)
    is_copied = ELLIPSIS in text and sum(map(_lists, sizes.values())) <= MAX_COPIED_VALUES
    return Example(text, request(lambda sizes, element: {"sizes": sizes, "of": element}) if is_copied else "")


def _has_batch(info: TensorInfo) -> bool:
    """Tell whether rows of a tensor can be asked one by one."""
    return info.shape is None or (len(info.shape) > 0 and info.shape[0] is None)


def _sizes(info: TensorInfo, *, by_row: bool) -> list[int]:
    """Return the sizes of the lists that a value is made of; an unknown one is 1."""
    shape = info.shape or ()
    return [1 if size is None else size for size in (shape[1:] if by_row else shape)]


def _shortened(sizes: list[int], element: Any) -> Any:
    return _filled(sizes, element, shorten=_lists(sizes) > MAX_VALUES)


def _lists(sizes: list[int]) -> int:
    """Return how many values or empty lists there are: [1000, 0] is a thousand of these."""
    return prod(max(size, 1) for size in sizes)


def _filled(sizes: list[int], element: Any, *, shorten: bool) -> Any:
    if not sizes:
        return element
    inner = _filled(sizes[1:], element, shorten=shorten)
    # Two of each are shown, but not two of two of two… of a tensor of 200 dimensions.
    is_long = sizes[0] > 2 or _lists([min(size, 2) for size in sizes]) > MAX_VALUES
    return [inner, ELLIPSIS] if shorten and is_long else [inner] * sizes[0]


def _element(dtype: str) -> Any:
    if dtype == "string":
        return "text"
    if dtype == "bool":
        return False
    return 0 if "int" in dtype else 0.0
