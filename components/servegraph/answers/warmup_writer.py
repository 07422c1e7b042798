"""Writes warmup requests into a SavedModel from sample records: TensorFlow Serving asks them when it loads the model.

The first request to a fresh model is the slow one. No server is needed for writing, nor tensorflow-serving-api: the
few fields of a PredictionLog are those that `warmup` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from servegraph.answers import sample_lines, warmup
from servegraph.answers.ask import Servable
from servegraph.answers.samples import are_same, specs_of
from servegraph.answers.warmup import PREDICT_LOG, WARMUP_FILE, WarmupRequest
from servegraph.errors import DataError, ModelError
from servegraph.savedmodel.graph import Signature
from servegraph.savedmodel.tfrecord import framed
from servegraph.savedmodel.wire import encode_bytes

LARGEST_BYTES = 100_000_000  # a fifth of what the smallest machine's model may be (500 MB on MLS1), in which it counts


def write(model: Path, signature_name: str, signature: Signature, samples: str) -> int:
    """Write one request a record of `samples` (JSON lines) into `model`, read them back, and return their number.

    Each is asked before: a request that fails keeps TensorFlow Serving from loading the model at all.

    Raises:
        DataError: the records do not fit the signature, are more than 1000 (code `TOO_MANY_REQUESTS`) or too large
            (`TOO_LARGE`), are not answered (`BAD_WARMUP_REQUESTS`).
    """
    specs = specs_of(signature)
    records = sample_lines.read(samples, specs, limit=warmup.MOST_RECORDS + 1, signature=signature_name)
    requests = [WarmupRequest(signature_name, request) for request in records.batches(1)]
    if len(requests) > warmup.MOST_RECORDS:
        raise DataError(
            f"{samples} holds more than {warmup.MOST_RECORDS} records; TensorFlow Serving takes no more.",
            code="TOO_MANY_REQUESTS",
            fix="Give fewer; a handful of each shape of request is enough.",
        )
    content = b"".join(framed(_prediction_log(request)) for request in requests)
    if len(content) > LARGEST_BYTES:
        raise DataError(
            f"The warmup requests take {len(content)} bytes, more than {LARGEST_BYTES}.",
            code="TOO_LARGE",
            fix="Give fewer or smaller records.",
        )
    _ask(model, requests)
    path = model / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    _read_back(model, requests)
    return len(requests)


def _ask(model: Path, requests: Sequence[WarmupRequest]) -> None:
    try:
        with Servable(model, loader="session") as servable:
            for request in requests:
                servable(request.signature_name, request.inputs)
    except ModelError as exc:
        raise DataError(
            f"The model does not answer a warmup request: {exc.message}", code="BAD_WARMUP_REQUESTS", fix=exc.fix
        ) from exc


def _read_back(model: Path, requests: Sequence[WarmupRequest]) -> None:
    found = warmup.read(model)
    same = len(found) == len(requests) and all(
        one.signature_name == other.signature_name and are_same(one.inputs, other.inputs)
        for one, other in zip(found, requests, strict=True)
    )
    if not same:
        raise DataError(
            f"What was written to {model / WARMUP_FILE} does not read back.",
            code="BAD_WARMUP_REQUESTS",
            fix="Export again; where it stays so, leave --warmup out and report this model and its records.",
        )


def _prediction_log(request: WarmupRequest) -> bytes:
    """PredictionLog.predict_log.request: a model spec with the signature's name, and the inputs."""
    asked = encode_bytes(1, encode_bytes(3, request.signature_name.encode()))
    for name, values in sorted(request.inputs.items()):
        tensor = tf.make_tensor_proto(values, shape=values.shape).SerializeToString(deterministic=True)
        asked += encode_bytes(2, encode_bytes(1, name.encode()) + encode_bytes(2, tensor))
    return encode_bytes(PREDICT_LOG, encode_bytes(1, asked))
