"""Golden requests: sample requests with the answers a model gave, kept inside the model for whoever deploys it.

The file is `assets.extra/golden_requests.jsonl` (TF Serving passes over what it does not know there), one JSON object
a line: {"signature_name": …, "inputs": {name: [values of the batch]}, "outputs": {name: [values of the batch]}}.
Bytes that are not UTF-8 stand as {"b64": …}, as in TF Serving's REST API.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.ask import Arrays, Servable
from servegraph.answers.samples import Samples
from servegraph.savedmodel.layout import GOLDEN_FILE

GOLDEN_ROWS = 16
LARGEST_BYTES = 2_000_000
ALLOWANCE = 0.01  # of the model's own size, and no less than ALLOWANCE_BYTES; the first request is kept beyond it
ALLOWANCE_BYTES = 4096


def write(model: Path, servable: Servable, signature: str, samples: Samples, model_bytes: int) -> int:
    """Ask `servable` the first samples in batches of 1, 2 and the rest, write the file into `model`, return its lines.

    Requests or answers that JSON cannot hold (NaN, infinity) are left out, and those that would make the model grow
    by more than `ALLOWANCE`.
    """
    lines: list[str] = []
    allowance = max(ALLOWANCE_BYTES, ALLOWANCE * model_bytes)
    for request in _requests(samples):
        answer = servable(signature, request)
        if not _finite(request) or not _finite(answer):
            continue
        document = {"signature_name": signature, "inputs": _plain(request), "outputs": _plain(answer)}
        line = json.dumps(document, ensure_ascii=False, sort_keys=True) + "\n"
        if sum(map(len, lines)) + len(line) <= (allowance if lines else LARGEST_BYTES):
            lines.append(line)
    if lines:
        path = model / GOLDEN_FILE
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _requests(samples: Samples) -> Iterator[Arrays]:
    if not samples.is_batched:
        yield samples.inputs
        return
    edges = [0, 1, 3, min(GOLDEN_ROWS, samples.rows)]
    for start, end in pairwise(edges):
        if start < end <= samples.rows:
            yield {name: values[start:end] for name, values in samples.inputs.items()}


def _finite(arrays: Arrays) -> bool:
    return all(np.isfinite(values).all() for values in arrays.values() if values.dtype.kind == "f")


def _plain(arrays: Arrays) -> dict[str, Any]:
    return {name: _json_value(values) for name, values in arrays.items()}


def _json_value(values: NDArray[Any]) -> Any:
    if values.dtype.kind in "OSU":
        return _texts(values.tolist())
    if values.dtype == np.float32:  # the shortest text that reads back to the same float32
        return np.array([float(str(value)) for value in values.ravel()]).reshape(values.shape).tolist()
    return values.tolist()


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode("ascii")}
    return value
