"""Sample requests: read from JSON lines, or made up from a signature's dtypes and shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.dtypes import numpy_type
from servegraph.answers.json_values import from_json, lengths
from servegraph.answers.made_up import Care, Draw, Encoding
from servegraph.errors import DataError
from servegraph.storage import match

LARGE_RECORD = 50_000  # values; of larger records two are made up, so that golden requests and asking stay small
FREE_DIMENSION = 8  # made-up length of a free inner dimension
FREE_SIDE = 64  # the same for what looks like an image: a convolutional net refuses a smaller one
IMAGE_RANK = 4
GOLDEN_ROWS = 16
_EDGES = (1, 3, GOLDEN_ROWS)
_MOST_ROWS = 64  # of a request
_WHOLE_REQUEST = "inputs"  # the key of a line that holds a whole request, as in a golden file
_MISSING = object()

Request = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class InputSpec:
    """Dtype name and shape of a signature's input; `shape` includes the batch, None is a free dimension."""

    dtype: str
    shape: tuple[int | None, ...] | None


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
        return all(
            one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one) for one, two in pairs
        )

    def in_requests_of(self, size: int) -> Samples | None:
        """Return the records in requests of exactly `size`, for a model that takes no other number of them.

        What is left over goes; made-up records are repeated until they suffice. None if there are too few.
        """
        parts: list[Request] = []
        labels: list[Any] = []
        done = 0
        for part in (self.inputs, *self.more):
            length = _length(part)
            is_short = self.generated and length < size
            rows = {name: np.resize(v, (size, *v.shape[1:])) for name, v in part.items()} if is_short else part
            for start in range(0, _length(rows) - size + 1, size):
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
            for start in range(0, _length(part), size):
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
            while start < _length(part):
                rows = next((edge - done for edge in _EDGES if edge > done), _MOST_ROWS)
                request = {name: values[start : start + rows] for name, values in part.items()}
                yield request
                start, done = start + _length(request), done + _length(request)


def read(
    uri: str,
    specs: Mapping[str, InputSpec],
    limit: int = 10_000,
    *,
    label: str | None = None,
    signature: str | None = None,
) -> Samples:
    """Read JSON lines, one record a line: {input name: value}; a bare value where there is one input.

    A line may also be a whole request, {"inputs": {input name: [values of the batch]}, …} as in a golden file; one
    whose `signature_name` is not `signature` is passed over. A signature without a batch dimension takes a line as
    one request. Bytes may stand as {"b64": …}. Keys that are no inputs are passed over, but for `label`, which every
    line must have then (a whole request: one a record). No further line is read once there are `limit` records.

    Raises:
        DataError: not JSON, an input or the label is missing, a value has the wrong dtype or shape, no records
            (codes `BAD_SAMPLES`, `EMPTY_SAMPLES`).
    """
    requests: list[Request] = []
    labels: list[Any] = []
    pending: list[Mapping[str, Any]] = []  # consecutive records, made arrays together
    for where, line in _lines(uri):
        if len(labels) >= limit:
            break
        if _is_whole_request(line):
            if signature is not None and line.get("signature_name", signature) != signature:
                continue
            requests += _stack(pending, specs, uri)
            pending = []
            values = _inputs(line[_WHOLE_REQUEST], specs, where)
            requests.append(
                {name: _array(values[name], spec, f"input {name!r} of {where}") for name, spec in specs.items()}
            )
            labels += _batch_labels(line, label, requests[-1] if is_batched(specs) else None, where)
        else:
            pending.append(_inputs(line, specs, where))
            labels.append(_label(line, label, where) if label else None)
    requests += _stack(pending, specs, uri)
    if not labels:
        raise DataError(f"{uri} holds no sample records.", code="EMPTY_SAMPLES", fix="Give one JSON object a line.")
    return together(requests, specs, labels=labels if label else ())


def from_records(records: Sequence[Mapping[str, Any]], specs: Mapping[str, InputSpec], source: str) -> Samples:
    """Return records of plain values as arrays. Raises `DataError` (`BAD_SAMPLES`)."""
    return together(_stack(records, specs, source), specs)


def together(requests: Sequence[Request], specs: Mapping[str, InputSpec], labels: Sequence[Any] = ()) -> Samples:
    """Return the requests as samples: neighbours are joined along the batch where the other dimensions are equal."""
    batched = is_batched(specs) and all(_has_batch(request) for request in requests)
    parts = list(requests)
    if batched:
        parts = [
            {name: np.concatenate([request[name] for request in group]) for name in specs}
            for group in (list(alike) for _, alike in groupby(requests, key=_inner_shapes))
        ]
    rows = sum(map(_length, parts)) if batched else len(parts)
    return Samples(parts[0], rows, False, batched, tuple(parts[1:]), tuple(labels))


def is_batched(specs: Mapping[str, InputSpec]) -> bool:
    """Whether every input has a free first dimension (or an unknown shape)."""
    return bool(specs) and all(spec.shape is None or spec.shape[:1] == (None,) for spec in specs.values())


def generate(
    specs: Mapping[str, InputSpec],
    rows: int = 16,
    seed: int = 0,
    *,
    encodings: Mapping[str, Encoding] | None = None,
    care: Care = "little",
    free: int | None = None,
) -> Samples:
    """Make up records that fit the dtypes and shapes: numbers of two decimals, small ids, short words.

    `encodings` says what an input must hold (`encodings.encodings` reads it off the graph). The more `care`, the fewer
    models refuse them (`Draw`), and the less they say. `free` is how long dimensions are that a shape leaves open.

    Raises:
        DataError: a dtype that no request can hold (code `CANNOT_MAKE_UP`).
    """
    draw = Draw(np.random.default_rng(seed), care)
    if care == "most":  # one number fits with whatever an input of unknown shape is computed with
        specs = {
            name: InputSpec(spec.dtype, () if spec.shape is None and spec.dtype != "string" else spec.shape)
            for name, spec in specs.items()
        }
    batched = is_batched(specs)
    shapes = {name: _made_up_shape(spec, free) for name, spec in specs.items()}
    values = sum(int(np.prod(shape[1:])) for shape in shapes.values())
    rows = 1 if not batched else 2 if values > LARGE_RECORD else rows
    inputs = {}
    for name, spec in specs.items():
        shape = (rows, *shapes[name][1:]) if batched else shapes[name]
        try:
            inputs[name] = draw.values(numpy_type(spec.dtype), shape, (encodings or {}).get(name))
        except TypeError as exc:
            raise DataError(
                f"The input {name!r} has the dtype {spec.dtype}, which no request can hold.", code="CANNOT_MAKE_UP"
            ) from exc
    return Samples(inputs, rows, generated=True, is_batched=batched)


def in_other_sizes(records: Sequence[Samples], outputs: Sequence[tuple[int | None, ...] | None]) -> Iterator[Samples]:
    """Yield records, for a model that refuses them, in requests of the sizes that its outputs are fixed to, and of one.

    `outputs` are the shapes of a signature's outputs.
    """
    fixed = [shape[0] for shape in outputs if shape and shape[0]]
    for size in dict.fromkeys((*fixed, 1)):
        for samples in records:
            if samples.is_batched and (resized := samples.in_requests_of(size)):
                yield resized


def _made_up_shape(spec: InputSpec, free: int | None) -> tuple[int, ...]:
    shape = (None,) if spec.shape is None else spec.shape
    free = free or (FREE_SIDE if len(shape) >= IMAGE_RANK else FREE_DIMENSION)
    return tuple(free if size is None else size for size in shape)


def _lines(uri: str) -> Iterator[tuple[str, Any]]:
    """Yield where each line is and what it holds."""
    for file in match(uri):
        with file.open_binary() as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                where = f"line {number} of {file.uri}"
                try:
                    yield where, json.loads(line)
                except (ValueError, RecursionError) as exc:
                    raise DataError(
                        f"{where} is not JSON: {exc}.", code="BAD_SAMPLES", fix="Give one record a line."
                    ) from exc


def _is_whole_request(line: Any) -> bool:
    """Whether a line has its inputs below a key of their own; {"b64": …} there is a value of an input of that name."""
    inputs = line.get(_WHOLE_REQUEST) if isinstance(line, dict) else None
    return isinstance(inputs, dict) and inputs.keys() != {"b64"}


def _inputs(record: Any, specs: Mapping[str, InputSpec], where: str) -> dict[str, Any]:
    if (not isinstance(record, dict) or record.keys() == {"b64"}) and len(specs) == 1:
        return {next(iter(specs)): record}
    missing = [name for name in specs if not isinstance(record, dict) or name not in record]
    if missing:
        raise DataError(
            f"{where} has no value for the inputs {missing}.",
            code="BAD_SAMPLES",
            fix=f"Give every input of the signature: {list(specs)}.",
        )
    return {name: record[name] for name in specs}


def _label(line: Any, key: str, where: str) -> Any:
    value = line.get(key, _MISSING) if isinstance(line, dict) else _MISSING
    if value is _MISSING or value is None:
        raise DataError(
            f"{where} has no label under {key!r}.",
            code="BAD_SAMPLES",
            fix="Give every record its label under that key.",
        )
    return value


def _batch_labels(line: Any, key: str | None, request: Request | None, where: str) -> list[Any]:
    """Return the labels of a whole request, one a record; one in all where there is no batch (`request` is None)."""
    rows = 1 if request is None else _length(request)
    if key is None:
        return [None] * rows
    label = _label(line, key, where)
    labels = label if isinstance(label, list) else [label]
    if len(labels) != rows:
        raise DataError(f"{where} has {len(labels)} labels for {rows} records.", code="BAD_SAMPLES")
    return labels


def _stack(records: Sequence[Mapping[str, Any]], specs: Mapping[str, InputSpec], source: str) -> list[Request]:
    """Return records as requests: neighbours with the same lengths together, each alone where there is no batch."""
    if not is_batched(specs):
        return [
            {name: _array(record[name], spec, f"input {name!r} of {source}") for name, spec in specs.items()}
            for record in records
        ]
    free = [name for name, spec in specs.items() if spec.shape is None or None in spec.shape[1:]]
    alike = groupby(records, key=lambda record: [lengths(record[name]) for name in free])
    return [
        {
            name: _array([record[name] for record in group], spec, f"input {name!r} of {source}")
            for name, spec in specs.items()
        }
        for group in (list(group) for _, group in alike)
    ]


def _array(values: Any, spec: InputSpec, where: str) -> NDArray[Any]:
    try:
        kind = numpy_type(spec.dtype)
        if kind.kind == "c":
            raise TypeError
    except TypeError:
        raise DataError(
            f"The {where} has the dtype {spec.dtype}, which JSON cannot hold.", code="BAD_SAMPLES"
        ) from None
    try:
        array = from_json(values, kind)
    except ValueError as exc:
        raise DataError(f"The {where} is not {spec.dtype} throughout: {exc}.", code="BAD_SAMPLES") from exc
    if spec.shape is not None and spec.shape[:1] == (1,) and array.ndim == len(spec.shape) - 1:
        array = array[None]  # the record of a signature whose batch is always one
    return fitting(array, spec, where)


def fitting(array: NDArray[Any], spec: InputSpec, where: str) -> NDArray[Any]:
    """Return the array if its shape is the signature's. Raises `DataError` (`BAD_SAMPLES`)."""
    wanted = spec.shape
    if wanted is not None and (
        len(wanted) != array.ndim
        or any(want not in (None, have) for want, have in zip(wanted, array.shape, strict=True))
    ):
        raise DataError(
            f"The {where} has the shape {list(array.shape)}, the signature wants {list(wanted)}.", code="BAD_SAMPLES"
        )
    return array


def _has_batch(request: Mapping[str, NDArray[Any]]) -> bool:
    return all(values.ndim for values in request.values()) and len({len(values) for values in request.values()}) == 1


def _inner_shapes(request: Mapping[str, NDArray[Any]]) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, request[name].shape[1:]) for name in sorted(request)]


def _length(request: Mapping[str, NDArray[Any]]) -> int:
    return len(next(iter(request.values())))
