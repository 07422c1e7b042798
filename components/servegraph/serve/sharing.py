"""Requests that share a call: which may, how their rows are put together, and how the answers are taken apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from servegraph.savedmodel.graph import Signature
from servegraph.serve.arrays import Array
from servegraph.serve.decode import PredictRequest
from servegraph.serve.lane import Job, Outcome

Outputs = Mapping[str, Array]
Run = Callable[[str, Mapping[str, Array]], Outputs]
Encode = Callable[[Outputs, PredictRequest], bytes]
_ROWS_TRIED = 12
_Key = tuple[str, tuple[tuple[str, tuple[int, ...], np.dtype[np.generic]], ...]]


def is_shareable(signature: Signature) -> bool:
    """Whether rows of several requests can go through `signature` together, by its declared shapes.

    Every input and every output must have a free leading dimension, and no input a default, which is of no row. Where
    an output has another free one and no input has, what a row holds decides how long all of them are.
    """
    inputs, outputs = list(signature.inputs.values()), list(signature.outputs.values())
    shapes = {id(info): info.shape for info in (*inputs, *outputs) if info.encoding == "dense" and info.shape}
    if len(shapes) < len(inputs) + len(outputs) or any(shape[0] is not None for shape in shapes.values()):
        return False
    if signature.defaults:
        return False
    is_free = [any(None in shapes[id(info)][1:] for info in side) for side in (inputs, outputs)]
    return is_free[0] or not is_free[1]


def different_rows(examples: Iterable[Mapping[str, Array]]) -> list[list[Mapping[str, Array]]]:
    """Return the first rows of all examples, no two alike, each as a request, in groups that one call can take."""
    groups: dict[object, list[Mapping[str, Array]]] = {}
    for example in examples:
        sizes = {array.shape[:1] for array in example.values()}
        if len(sizes) != 1 or not (size := sizes.pop()):
            continue
        inner = tuple((name, array.shape[1:], array.dtype) for name, array in sorted(example.items()))
        found = groups.setdefault(inner, [])
        for number in range(min(size[0], _ROWS_TRIED - len(found))):
            row = {name: array[number : number + 1] for name, array in example.items()}
            if not any(all(np.array_equal(row[name], other[name]) for name in row) for other in found):
                found.append(row)
    return list(groups.values())


def in_one(requests: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
    """Return the rows of several requests as one."""
    return {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}


def share(waiting: deque[Job], shareable: Collection[str], batch_rows: int) -> int:
    """Return how many of the first requests in the line can share a call of at most `batch_rows` rows."""
    first: PredictRequest = waiting[0].request
    rows = _rows(first)
    if first.signature_name not in shareable or rows is None:
        return 1
    key = _key(first)
    count = 0
    total = 0
    for job in waiting:
        rows = _rows(job.request)
        if rows is None or (count and total + rows > batch_rows) or _key(job.request) != key:
            break
        total += rows
        count += 1
    return count


def answer(requests: Sequence[PredictRequest], run: Run, encode: Encode) -> list[Outcome]:
    """Return the answer to each request: from one call, or from a call each where that fails.

    So a request that a model refuses costs those beside it time, never their answer.
    """
    if len(requests) > 1:
        try:
            parts = _together(requests, run)
        except Exception:  # whose fault it is shows when each is asked alone
            parts = None
        if parts is not None:
            return [_encoded(request, part, encode) for request, part in zip(requests, parts, strict=True)]
    return [_alone(request, run, encode) for request in requests]


def _together(requests: Sequence[PredictRequest], run: Run) -> list[Outputs] | None:
    first = requests[0]
    outputs = run(first.signature_name, in_one([request.inputs for request in requests]))
    sizes = [len(next(iter(request.inputs.values()))) for request in requests]
    total = sum(sizes)
    if any(array.ndim == 0 or len(array) != total for array in outputs.values()):
        return None
    parts: list[Outputs] = []
    start = 0
    for size in sizes:
        parts.append({name: array[start : start + size] for name, array in outputs.items()})
        start += size
    return parts


def _alone(request: PredictRequest, run: Run, encode: Encode) -> Outcome:
    try:
        return encode(run(request.signature_name, request.inputs), request)
    except Exception as exc:  # handed to whoever asked
        return exc


def _encoded(request: PredictRequest, outputs: Outputs, encode: Encode) -> Outcome:
    try:
        return encode(outputs, request)
    except Exception as exc:
        return exc


def _rows(request: PredictRequest) -> int | None:
    """Return the number of rows that all inputs have, None where they differ."""
    sizes = {len(array) if array.ndim else None for array in request.inputs.values()}
    return sizes.pop() if len(sizes) == 1 else None


def _key(request: PredictRequest) -> _Key:
    return (
        request.signature_name,
        tuple((name, array.shape[1:], array.dtype) for name, array in sorted(request.inputs.items())),
    )
