"""Warmup requests: what TF Serving asks a model when it loads it, and so samples that its owner stored with it.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of PredictionLog protos. Field numbers are those of
tensorflow_serving/apis: prediction_log.proto, predict.proto, classification.proto, regression.proto, inference.proto,
input.proto and model.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from servegraph.answers import left_out
from servegraph.answers.dtypes import is_text, numpy_type
from servegraph.answers.samples import InputSpec, Samples, fitting, together
from servegraph.errors import DataError
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE
from servegraph.savedmodel.tfrecord import records
from servegraph.savedmodel.wire import Malformed, fields, payloads
from servegraph.storage import match
from servegraph.tensor_values import values_of

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
_FIX = "Write the warmup requests again, or remove the file."
MOST_RECORDS = 1000  # TF Serving refuses a file with more
EXAMPLES_INPUT = "inputs"  # what a signature for classification or regression calls its input
# PredictionLog
CLASSIFY_LOG, REGRESS_LOG, MULTI_INFERENCE_LOG, PREDICT_LOG = 2, 3, 4, 6
LIST_WITH_CONTEXT = 2  # in Input


class WarmupRequest(NamedTuple):
    """One request: inputs as they are sent, with the batch."""

    signature_name: str
    inputs: Mapping[str, NDArray[Any]]


def read(model: Path) -> tuple[WarmupRequest, ...]:
    """Return the warmup requests of the SavedModel at `model`, none where it has no such file.

    At most `MOST_RECORDS` are read. Requests to classify and regress are the serialized Examples of the input
    `inputs`. Session runs and streamed predictions, which name no signature or are no single request, are left out.

    Raises:
        DataError: the file is damaged (codes `BAD_ROW`, `BAD_WARMUP_REQUESTS`).
    """
    path = model / WARMUP_FILE
    if not path.is_file():
        return ()
    (file,) = match(path)
    requests: list[WarmupRequest] = []
    for number, record in enumerate(islice(records(file), MOST_RECORDS), start=1):
        try:
            requests += _requests(record)
        except (Malformed, ValueError, TypeError, KeyError) as exc:
            raise DataError(
                f"Record {number} of {path} is not a PredictionLog: {exc}.",
                code="BAD_WARMUP_REQUESTS",
                fix=_FIX,
            ) from exc
    return tuple(requests)


def samples(requests: Sequence[WarmupRequest], signature: str, specs: Mapping[str, InputSpec]) -> Samples | None:
    """Return the requests for one signature as samples, None where there are none.

    Raises:
        DataError: a request does not fit the signature's inputs (code `BAD_SAMPLES`).
    """
    fitting_requests = [
        _fitting(request, specs, f"warmup request {number}")
        for number, request in enumerate(requests, start=1)
        if request.signature_name == signature
    ]
    return together(fitting_requests, specs) if fitting_requests else None


def _fitting(request: WarmupRequest, specs: Mapping[str, InputSpec], where: str) -> dict[str, NDArray[Any]]:
    if left_out.missing(request.inputs, specs) or request.inputs.keys() - specs.keys():
        raise DataError(
            f"The {where} has the inputs {sorted(request.inputs)}, the signature {sorted(specs)}.",
            code="BAD_SAMPLES",
            fix=_FIX,
        )
    given = {name: request.inputs[name] for name in specs if name in request.inputs}
    for name, values in given.items():
        have, wanted = values.dtype, numpy_type(specs[name].dtype)
        if have != wanted and not (is_text(have) and is_text(wanted)):
            raise DataError(
                f"The input {name!r} of {where} is {have}, the signature wants {specs[name].dtype}.",
                code="BAD_SAMPLES",
                fix=_FIX,
            )
    fit = {name: fitting(values, specs[name], f"input {name!r} of {where}") for name, values in given.items()}
    return left_out.filled(fit, specs)


def _requests(record: bytes) -> Iterator[WarmupRequest]:
    for field in fields(record):
        if field.number not in (CLASSIFY_LOG, REGRESS_LOG, MULTI_INFERENCE_LOG, PREDICT_LOG):
            continue
        log = record[field.start : field.end]
        request = _last(log, 1)
        if field.number == PREDICT_LOG:
            inputs = dict(_tensor(request[start:end]) for start, end in payloads(request, 2))
            yield WarmupRequest(_signature(request), inputs)
        else:
            # A request for several inferences has a model spec in each task, the others one of their own.
            tasks = [request]
            if field.number == MULTI_INFERENCE_LOG:
                tasks = [request[start:end] for start, end in payloads(request, 1)]
            examples = {EXAMPLES_INPUT: _examples(_last(request, 2))}
            yield from (WarmupRequest(_signature(task), examples) for task in tasks)


def _signature(request: bytes) -> str:
    """Return the signature that the ModelSpec in field 1 names."""
    return _last(_last(request, 1), 3).decode() or DEFAULT_SIGNATURE


def _tensor(entry: bytes) -> tuple[str, NDArray[Any]]:
    """Return name and value of an entry of `map<string, TensorProto>`."""
    try:
        proto = tf.make_tensor_proto(0).FromString(_last(entry, 2))
    except Exception as exc:  # protobuf's DecodeError; its class differs between protobuf implementations
        raise ValueError(f"a tensor cannot be read: {exc}") from exc
    return _last(entry, 1).decode(), values_of(proto)


def _examples(sent: bytes) -> NDArray[Any]:
    """Return the serialized Examples of an Input: a list, or one with a context that each Example is merged into."""
    found: list[bytes] = []
    for field in fields(sent):
        listed = sent[field.start : field.end]
        context = _last(listed, 2) if field.number == LIST_WITH_CONTEXT else b""
        found = [context + listed[start:end] for start, end in payloads(listed, 1)]
    array: NDArray[Any] = np.empty(len(found), dtype=np.object_)
    array[:] = found
    return array


def _last(message: bytes, number: int) -> bytes:
    """Return the payload of a field; of one that stands there several times the last, as protobuf reads it."""
    found = b""
    for start, end in payloads(message, number):
        found = message[start:end]
    return found
