"""Sample requests from JSON lines: records, or whole requests as in a golden file, each with its label."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from numpy.typing import NDArray

from servegraph.answers import left_out
from servegraph.answers.dtypes import numpy_type
from servegraph.answers.json_values import from_json, lengths
from servegraph.answers.samples import InputSpec, Request, Samples, fitting, is_batched, length_of, together
from servegraph.errors import DataError
from servegraph.storage import match

_WHOLE_REQUEST = "inputs"  # the key of a line that holds a whole request
_MISSING = object()


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
    one request; there an input with a batch may be given as one row. Where a line leaves out what the signature has a
    default of, that is asked. Bytes may stand as {"b64": …}. Keys that are no inputs are passed over, but for `label`,
    which every line must have then (a whole request: one a record). No further line is read once there are `limit`
    records.

    Raises:
        DataError: not JSON, an input or the label is missing, a value has the wrong dtype or shape, no records
            (codes `BAD_SAMPLES`, `EMPTY_SAMPLES`).
    """
    whose = f"the signature {signature!r}" if signature else "the signature"
    aim = f", for {whose}," if signature else ""
    requests: list[Request] = []
    labels: list[Any] = []
    pending: list[Mapping[str, Any]] = []  # consecutive records, made arrays together
    for where, line in _lines(uri):
        if len(labels) >= limit:
            break
        if _is_whole_request(line):
            if signature is not None and line.get("signature_name", signature) != signature:
                continue
            requests += _stack(pending, specs, f"{uri}{aim}")
            pending = []
            values = _inputs(line[_WHOLE_REQUEST], specs, where, whose)
            requests.append(left_out.filled(_arrays(values, specs, f"{where}{aim}"), specs))
            labels += _batch_labels(line, label, requests[-1] if is_batched(specs) else None, where)
        else:
            pending.append(_inputs(line, specs, where, whose))
            labels.append(_label(line, label, where) if label else None)
    requests += _stack(pending, specs, f"{uri}{aim}")
    if not labels:
        raise DataError(f"{uri} holds no sample records.", code="EMPTY_SAMPLES", fix="Give one JSON object a line.")
    return together(requests, specs, labels=labels if label else ())


def closeness(uri: str, specs: Mapping[str, InputSpec], signature: str) -> float:
    """Return how likely the samples are meant for a signature: the part of its inputs that the first line names.

    A whole request that names another signature is meant for that; a bare value for any that has one input. What is no
    JSON is meant for none.
    """
    try:
        line: Any = next((line for _, line in _lines(uri)), None)
    except DataError:
        return 0.0
    if _is_whole_request(line):
        if line.get("signature_name", signature) != signature:
            return -1.0
        line = line[_WHOLE_REQUEST]
    if not isinstance(line, dict) or line.keys() == {"b64"}:
        return float(len(specs) == 1)
    return sum(name in line for name in specs) / max(len(specs), 1)


def _lines(uri: str) -> Iterator[tuple[str, Any]]:
    """Yield where each line is and what it holds."""
    for file in match(uri):
        with file.open_text() as stream:
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


def _inputs(record: Any, specs: Mapping[str, InputSpec], where: str, whose: str) -> dict[str, Any]:
    if (not isinstance(record, dict) or record.keys() == {"b64"}) and len(specs) == 1:
        return {next(iter(specs)): record}
    missing = left_out.missing(record if isinstance(record, dict) else (), specs)
    if missing or not isinstance(record, dict):
        raise DataError(
            f"{where} has no value for the inputs {missing} of {whose}.",
            code="BAD_SAMPLES",
            fix=f"Give every input of {whose}: {list(specs)}.",
        )
    return {name: record[name] for name in specs if name in record}


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
    rows = 1 if request is None else length_of(request)
    if key is None:
        return [None] * rows
    label = _label(line, key, where)
    labels = label if isinstance(label, list) else [label]
    if len(labels) != rows:
        raise DataError(
            f"{where} has {len(labels)} labels for {rows} records.",
            code="BAD_SAMPLES",
            fix="Give a list with one label for each record of the request.",
        )
    return labels


def _stack(records: Sequence[Mapping[str, Any]], specs: Mapping[str, InputSpec], source: str) -> list[Request]:
    """Return records as requests: neighbours with the same lengths together, each alone where there is no batch.

    Each is alone as well where a default that it is asked with is none of rows.
    """
    if not is_batched(specs):
        return [left_out.filled(_arrays(record, specs, source, of_record=True), specs) for record in records]
    free = {name for name, spec in specs.items() if spec.shape is None or None in spec.shape[1:]}
    apart = {name for name, spec in specs.items() if spec.default is not None and not left_out.is_one_row(name, spec)}

    def kind(numbered: tuple[int, Mapping[str, Any]]) -> Any:
        number, record = numbered
        return [*record], [lengths(record[name]) for name in record if name in free], apart <= record.keys() or number

    requests = []
    for _, alike in groupby(enumerate(records), key=kind):
        group = [record for _, record in alike]
        values = {name: [record[name] for record in group] for name in group[0]}
        requests.append(left_out.filled(_arrays(values, specs, source), specs))
    return requests


def _arrays(
    values: Mapping[str, Any], specs: Mapping[str, InputSpec], source: str, *, of_record: bool = False
) -> Request:
    return {
        name: _array(value, specs[name], f"input {name!r} of {source}", of_record=of_record)
        for name, value in values.items()
    }


def _array(values: Any, spec: InputSpec, where: str, *, of_record: bool) -> NDArray[Any]:
    """Return the values of an input, `of_record` where they may lack the batch, which then is one."""
    try:
        kind = numpy_type(spec.dtype)
        if kind.kind == "c":
            raise TypeError
    except TypeError:
        raise DataError(
            f"The {where} has the dtype {spec.dtype}, which JSON cannot hold.",
            code="BAD_SAMPLES",
            fix="Leave --samples out, and records are made up.",
        ) from None
    try:
        array = from_json(values, kind)
    except ValueError as exc:
        raise DataError(
            f"The {where} is not {spec.dtype} throughout: {exc}.", code="BAD_SAMPLES", fix="Give values of that type."
        ) from exc
    batches = (1, None) if of_record else (1,)
    if spec.shape and spec.shape[0] in batches and array.ndim == len(spec.shape) - 1:
        array = array[None]
    return fitting(array, spec, where)
