"""Sample requests: the records that a model is asked, and how they come together in requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.errors import DataError
from servegraph.savedmodel.graph import Signature

GOLDEN_ROWS = 16
_EDGES = (1, 3, GOLDEN_ROWS)
_MOST_ROWS = 64  # of a request

Request = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class InputSpec:
    """Dtype name and shape of a signature's input; `shape` includes the batch, None is a free dimension.

    `default` is what a server takes for it where a request leaves it out, as an encoded TensorProto; see `left_out`.
    """

    dtype: str
    shape: tuple[int | None, ...] | None
    default: bytes | None = None


@dataclass(frozen=True)
class Samples:
    """`rows` records as arrays with the batch first; `generated` ones say nothing about accuracy.

    Records whose free inner dimensions have other lengths follow as further arrays in `more`. Where an input has no
    free batch dimension each of `inputs` and `more` is one request as it stands, and `is_batched` is False.
    `labels` has one entry a record, or none at all.
    """

    inputs: Request
    rows: int
    generated: bool
    is_batched: bool = True
    more: tuple[Request, ...] = ()
    labels: tuple[Any, ...] = ()

    def equals(self, other: Samples) -> bool:
        """Whether both are the same requests."""
        if self.is_batched != other.is_batched or len(self.more) != len(other.more):
            return False
        pairs = zip((self.inputs, *self.more), (other.inputs, *other.more), strict=True)
        return all(are_same(one, two) for one, two in pairs)

    def in_requests_of(self, size: int) -> Samples | None:
        """Return the records in requests of exactly `size`, for a model that takes no other number of them.

        What is left over goes; made-up records are repeated until they suffice. None if there are too few.
        """
        parts: list[Request] = []
        labels: list[Any] = []
        done = 0
        for part in (self.inputs, *self.more):
            length = length_of(part)
            is_short = self.generated and length < size
            rows = {name: np.resize(v, (size, *v.shape[1:])) for name, v in part.items()} if is_short else part
            for start in range(0, length_of(rows) - size + 1, size):
                parts.append({name: values[start : start + size] for name, values in rows.items()})
                labels += self.labels[done + start : done + start + size]
            done += length
        if not parts:
            return None
        return Samples(parts[0], len(parts), self.generated, False, tuple(parts[1:]), tuple(labels))

    def batches(self, size: int) -> Iterator[Request]:
        """Yield the records in their order, in batches of at most `size`."""
        for part in (self.inputs, *self.more):
            if not self.is_batched:
                yield part
                continue
            for start in range(0, length_of(part), size):
                yield {name: values[start : start + size] for name, values in part.items()}

    def requests(self) -> Iterator[Request]:
        """Yield the records in their order, as models are asked: in small batches first, 1, 2 and 13 of them.

        The first `GOLDEN_ROWS` end where a request ends: with their answers they become golden requests.
        """
        done = 0
        for part in (self.inputs, *self.more):
            if not self.is_batched:
                yield part
                continue
            start = 0
            while start < length_of(part):
                rows = next((edge - done for edge in _EDGES if edge > done), _MOST_ROWS)
                request = {name: values[start : start + rows] for name, values in part.items()}
                yield request
                start, done = start + length_of(request), done + length_of(request)


def together(requests: Sequence[Request], specs: Mapping[str, InputSpec], labels: Sequence[Any] = ()) -> Samples:
    """Return the requests as samples: neighbours are joined along the batch where the other dimensions are equal."""
    batched = is_batched(specs) and all(_has_batch(request) for request in requests)
    parts = list(requests)
    if batched:
        parts = [
            {name: np.concatenate([request[name] for request in group]) for name in specs}
            for group in (list(alike) for _, alike in groupby(requests, key=_inner_shapes))
        ]
    rows = sum(map(length_of, parts)) if batched else len(parts)
    return Samples(parts[0], rows, False, batched, tuple(parts[1:]), tuple(labels))


def specs_of(signature: Signature) -> dict[str, InputSpec]:
    """Return what the inputs of a signature are."""
    return {
        name: InputSpec(info.dtype, info.shape, signature.defaults.get(name)) for name, info in signature.inputs.items()
    }


def is_batched(specs: Mapping[str, InputSpec]) -> bool:
    """Whether every input has a free first dimension (or an unknown shape)."""
    return bool(specs) and all(spec.shape is None or spec.shape[:1] == (None,) for spec in specs.values())


def in_other_sizes(records: Sequence[Samples], outputs: Sequence[tuple[int | None, ...] | None]) -> Iterator[Samples]:
    """Yield records, for a model that refuses them, in requests of the sizes that its outputs are fixed to, and of one.

    `outputs` are the shapes of a signature's outputs.
    """
    fixed = [shape[0] for shape in outputs if shape and shape[0]]
    for size in dict.fromkeys((*fixed, 1)):
        for samples in records:
            if samples.is_batched and (resized := samples.in_requests_of(size)):
                yield resized


def fitting(array: NDArray[Any], spec: InputSpec, where: str) -> NDArray[Any]:
    """Return the array if its shape is the signature's. Raises `DataError` (`BAD_SAMPLES`)."""
    wanted = spec.shape
    if wanted is not None and (
        len(wanted) != array.ndim
        or any(want not in (None, have) for want, have in zip(wanted, array.shape, strict=True))
    ):
        raise DataError(
            f"The {where} has the shape {list(array.shape)}, the signature wants {list(wanted)}.",
            code="BAD_SAMPLES",
            fix="Give values of that shape; None is any length, and the first is the batch, which a record has not.",
        )
    return array


def _has_batch(request: Mapping[str, NDArray[Any]]) -> bool:
    return all(values.ndim for values in request.values()) and len({len(values) for values in request.values()}) == 1


def _inner_shapes(request: Mapping[str, NDArray[Any]]) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, request[name].shape[1:]) for name in sorted(request)]


def length_of(request: Mapping[str, NDArray[Any]]) -> int:
    """Return the number of records in a request that has a batch."""
    return len(next(iter(request.values())))


def are_same(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> bool:
    """Whether requests or answers are the same to the bit; NaN is the same as NaN."""
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype
        and value.shape == other[name].shape
        and (np.array_equal(value, other[name]) if value.dtype == object else value.tobytes() == other[name].tobytes())
        for name, value in one.items()
    )
