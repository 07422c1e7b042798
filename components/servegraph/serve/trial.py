"""What a loaded model is tried with before it takes traffic: requests stored with it, else made-up ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from servegraph.errors import ServegraphError, in_short
from servegraph.savedmodel.golden_file import GoldenRequest, is_part, parse_golden
from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.serve.arrays import Array

MOST_REQUESTS = 64  # of each kind: a warmup file may hold a thousand
_MADE_UP_ROWS = 3

_log = logging.getLogger(__name__)


class Recorded(NamedTuple):
    """What was recorded of an output: each `every`-th value in row-major order, and the shape of all."""

    values: Array
    shape: tuple[int, ...]
    every: int = 1

    def same_of(self, answer: Array) -> Array | None:
        """Return the values of an answer that stand at the same places; None where its shape is another.

        JSON does not say what an empty list would hold: of no boxes nobody knows that each has four sides.
        """
        is_same = _told(answer.shape) == _told(self.shape)
        return answer.reshape(-1)[:: self.every] if is_same else None


def _told(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return what nested lists tell of a shape."""
    return shape[: shape.index(0) + 1] if 0 in shape else shape


class Trial(NamedTuple):
    """A request to try; `outputs` are the answers it must get, None where any will do."""

    signature_name: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Recorded] | None = None
    within: float = 0.0  # how far a number may be from it whatever the tolerance


def stored_trials(directory: Path, signatures: Mapping[str, Signature], with_golden: bool = True) -> list[Trial]:
    """Return the warmup and golden requests in the model's `assets.extra`; what cannot be read is logged and left."""
    trials: list[Trial] = []
    for read in (_warmup, _golden) if with_golden else (_warmup,):
        try:
            trials += read(directory, signatures)
        except ServegraphError as exc:
            _log.warning("%s", exc)
    return trials


def made_up_requests(name: str, signature: Signature, meta_graph: Any) -> list[Mapping[str, Array]]:
    """Return requests for one signature: a few rows, then single ones unlike them; none where none can be made up."""
    from servegraph.answers.encodings import encodings
    from servegraph.answers.generated import generate
    from servegraph.answers.samples import specs_of
    from servegraph.serve.unlike_rows import unlike_rows

    specs = specs_of(signature)
    try:
        found = {} if meta_graph is None else encodings(meta_graph, name)
        made = generate(specs, rows=_MADE_UP_ROWS, encodings=found, care="some")
        return [made.inputs, *(unlike_rows(made.inputs, found) if made.is_batched else ())]
    except Exception as exc:  # a graph of any kind: then nothing is tried
        _log.debug("%s: no request can be made up: %s", name, exc)
        return []


def _warmup(directory: Path, signatures: Mapping[str, Signature]) -> list[Trial]:
    from servegraph.answers import warmup

    requests = warmup.read(directory)[:MOST_REQUESTS]
    return [Trial(request.signature_name, request.inputs) for request in requests if _fits(request, signatures)]


def _fits(request: Any, signatures: Mapping[str, Signature]) -> bool:
    signature = signatures.get(request.signature_name)
    if signature is None:
        return False
    given = {*request.inputs}
    return signature.inputs.keys() - {*signature.defaults} <= given <= signature.inputs.keys()


def _golden(directory: Path, signatures: Mapping[str, Signature]) -> list[Trial]:
    path = directory / GOLDEN_FILE
    if not path.is_file():
        return []
    try:
        return [_trial(request, signatures) for request in parse_golden(path.read_bytes())[:MOST_REQUESTS]]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        _log.warning("%s does not fit the model: %s", path, in_short(exc))
        return []


def _trial(request: GoldenRequest, signatures: Mapping[str, Signature]) -> Trial:
    from servegraph.answers.dtypes import numpy_type
    from servegraph.answers.json_values import from_json

    def read(values: Any, tensor: TensorInfo) -> Array:
        return from_json(values, numpy_type(tensor.dtype))

    name = str(request.signature_name)
    asked = signatures[name]
    inputs = {key: read(values, asked.inputs[key]) for key, values in request.inputs.items()}
    outputs: dict[str, Recorded] = {}
    for key, found in request.outputs.items():
        if is_part(found):
            outputs[key] = Recorded(read(found["values"], asked.outputs[key]), tuple(found["shape"]), found["every"])
        else:
            values = read(found, asked.outputs[key])
            outputs[key] = Recorded(values.reshape(-1), values.shape)
    return Trial(name, inputs, outputs, request.within)
