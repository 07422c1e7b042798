"""The three methods of TF Serving's REST API over one kind of request: predict, classify and regress."""

from __future__ import annotations

from typing import Literal

from servegraph.serve.decode import PredictRequest, decode
from servegraph.serve.encode import encode
from servegraph.serve.examples import decode_examples, encode_classes, encode_values
from servegraph.serve.sharing import Outputs
from servegraph.serve.signatures import ServingGraph

Method = Literal["predict", "classify", "regress"]


def decode_for(method: Method, body: bytes, graph: ServingGraph) -> PredictRequest:
    """Return the request that `body` holds. Raises `RequestError`."""
    return decode(body, graph) if method == "predict" else decode_examples(method, body, graph)


def encode_for(outputs: Outputs, request: PredictRequest) -> bytes:
    """Return the JSON that answers `request`. Raises `Refusal` where its format cannot carry the outputs."""
    if request.format == "classify":
        return encode_classes(outputs, request)
    if request.format == "regress":
        return encode_values(outputs, request)
    return encode(outputs, request.format)
