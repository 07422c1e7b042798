"""Sample requests: read from JSON lines, or made up from a signature's dtypes and shapes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.errors import DataError
from servegraph.storage import match

NUMPY_TYPES = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}
LARGEST_BATCH = 1_000_000  # values of all made-up records together
LEAST_ROWS = 3
FREE_DIMENSION = 8  # made-up length of a free inner dimension


@dataclass(frozen=True)
class InputSpec:
    """Dtype name and shape of a signature's input; `shape` includes the batch, None is a free dimension."""

    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Samples:
    """`rows` records as arrays with the batch first; `generated` ones say nothing about accuracy.

    Where an input has no free batch dimension the arrays are one request as they stand, and `is_batched` is False.
    """

    inputs: dict[str, NDArray[Any]]
    rows: int
    generated: bool
    is_batched: bool = True

    def batches(self, size: int) -> Iterable[dict[str, NDArray[Any]]]:
        """Yield the records in batches of at most `size`."""
        if not self.is_batched:
            yield self.inputs
            return
        for start in range(0, self.rows, size):
            yield {name: values[start : start + size] for name, values in self.inputs.items()}


def read(uri: str, specs: Mapping[str, InputSpec], limit: int = 10_000) -> Samples:
    """Read JSON lines, one record a line: {input name: value}; a bare value where there is one input.

    Keys that are no inputs (a label, an id) are passed over. At most `limit` records are read.

    Raises:
        DataError: not JSON, an input is missing, a value has the wrong dtype or shape, no records
            (codes `BAD_SAMPLES`, `EMPTY_SAMPLES`).
    """
    records: list[dict[str, Any]] = []
    for file in match(uri):
        with file.open_binary() as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip() and len(records) < limit:
                    records.append(_record(line, specs, f"line {number} of {file.uri}"))
    if not records:
        raise DataError(f"{uri} holds no sample records.", code="EMPTY_SAMPLES", fix="Give one JSON object a line.")
    return from_records(records, specs, uri)


def from_records(records: Sequence[Mapping[str, Any]], specs: Mapping[str, InputSpec], source: str) -> Samples:
    """Return the records as one array per input. Raises `DataError` (`BAD_SAMPLES`)."""
    arrays = {
        name: _array([record[name] for record in records], spec, f"input {name!r} of {source}")
        for name, spec in specs.items()
    }
    return Samples(arrays, len(records), generated=False)


def generate(specs: Mapping[str, InputSpec], rows: int = 16, seed: int = 0) -> Samples:
    """Make up records that fit the dtypes and shapes: small random numbers, short words; fewer where they are large."""
    random = np.random.default_rng(seed)
    values = sum(prod(d or FREE_DIMENSION for d in (spec.shape or ())[1:]) for spec in specs.values())
    rows = min(rows, max(LEAST_ROWS, LARGEST_BATCH // max(values, 1)))
    is_batched = all(spec.shape is None or spec.shape[:1] == (None,) for spec in specs.values())
    inputs = {}
    for name, spec in specs.items():
        shape = [FREE_DIMENSION if d is None else d for d in ((None,) if spec.shape is None else spec.shape)]
        if is_batched:
            shape[0] = rows
        kind = NUMPY_TYPES.get(spec.dtype, np.float32)
        if spec.dtype == "string":
            words = np.array(["alpha", "beta", "gamma", "a b", ""], dtype=object)
            inputs[name] = random.choice(words, size=shape)
        elif spec.dtype == "bool":
            inputs[name] = random.integers(0, 2, shape).astype(bool)
        elif "int" in spec.dtype:
            inputs[name] = random.integers(0, 3, shape).astype(kind)
        else:
            inputs[name] = random.normal(size=shape).astype(kind)
    return Samples(inputs, rows if is_batched else 1, generated=True, is_batched=is_batched)


def _record(line: bytes, specs: Mapping[str, InputSpec], where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as exc:
        raise DataError(f"{where} is not JSON: {exc}.", code="BAD_SAMPLES", fix="Give one record a line.") from exc
    if not isinstance(record, dict) and len(specs) == 1:
        return {next(iter(specs)): record}
    missing = [name for name in specs if not isinstance(record, dict) or name not in record]
    if missing:
        raise DataError(
            f"{where} has no value for the inputs {missing}.",
            code="BAD_SAMPLES",
            fix=f"Give every input of the signature: {list(specs)}.",
        )
    return {name: record[name] for name in specs}


def _array(values: list[Any], spec: InputSpec, where: str) -> NDArray[Any]:
    kind = NUMPY_TYPES.get(spec.dtype)
    if kind is None:
        raise DataError(f"The {where} has the dtype {spec.dtype}, which JSON cannot hold.", code="BAD_SAMPLES")
    rank = len(spec.shape) if spec.shape is not None else None
    try:
        array: NDArray[Any] = np.array(values, dtype=kind)
    except (ValueError, TypeError, OverflowError) as exc:
        raise DataError(f"The {where} is not {spec.dtype} throughout: {exc}.", code="BAD_SAMPLES") from exc
    fits = rank is None or (
        array.ndim == rank
        and all(want in (None, have) for want, have in zip((spec.shape or ())[1:], array.shape[1:], strict=True))
    )
    if not fits:
        raise DataError(
            f"The {where} has the shape {list(array.shape)}, the signature wants {list(spec.shape or ())}.",
            code="BAD_SAMPLES",
        )
    return array
