"""Requests that share a call: which may, how their rows are put together, and how the answers are taken apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from servegraph.savedmodel.graph import Signature
from servegraph.serve.arrays import Array
from servegraph.serve.decode import PredictRequest
from servegraph.serve.lane import Job, Outcome

Outputs = Mapping[str, Array]
Run = Callable[[str, Mapping[str, Array]], Outputs]
Encode = Callable[[Outputs, PredictRequest], bytes]
_Key = tuple[str, tuple[tuple[str, tuple[int, ...], np.dtype[np.generic]], ...]]


def is_shareable(signature: Signature) -> bool:
    """Whether rows of several requests can go through `signature` together, by its declared shapes.

    Every input and every output must have a free leading dimension.
    """
    tensors = (*signature.inputs.values(), *signature.outputs.values())
    return all(info.encoding == "dense" and info.shape is not None and info.shape[:1] == (None,) for info in tensors)


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
    joined = {name: np.concatenate([request.inputs[name] for request in requests]) for name in first.inputs}
    outputs = run(first.signature_name, joined)
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
