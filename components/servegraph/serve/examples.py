"""The methods classify and regress: lists of features become serialized tf.Examples, answers become pairs or values.

After `json_tensor.cc`, `classifier.cc` and `regressor.cc` in tensorflow/serving, messages included. The answer's key is
`results`, as in that code and in the example of api_rest.md; the text of api_rest.md says `result`.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np

from servegraph.errors import Refusal, RequestError
from servegraph.savedmodel.graph import Signature
from servegraph.serve.arrays import bytes_of, kind
from servegraph.serve.decode import PredictRequest, named_signature, parse
from servegraph.serve.encode import shortest
from servegraph.serve.sharing import Outputs
from servegraph.serve.signatures import ServingGraph

INPUT = "inputs"  # CLASSIFY_INPUTS and REGRESS_INPUTS in signature_constants.h
CLASSES, SCORES, VALUES = "classes", "scores", "outputs"
_NOUNS = {"classify": "classification", "regress": "regression"}
_PREDICT = "Use :predict for this signature."
_EXAMPLES = 'Send {"examples": [{"FEATURE": VALUE, …}, …]}.'
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def decode_examples(method: Literal["classify", "regress"], body: bytes, graph: ServingGraph) -> PredictRequest:
    """Return the request that `body` holds: its examples, serialized, each after the common context.

    Raises:
        RequestError: it is no such request, or the signature is not of that method.
    """
    document = parse(body)
    signature_name, signature = named_signature(document, graph)
    _check_signature(method, signature)
    if "examples" not in document:
        raise RequestError(f"When method is {method}, key 'examples' is expected and was not found.", fix=_EXAMPLES)
    examples = document["examples"]
    if not isinstance(examples, list) or not examples:
        found = "an empty list" if examples == [] else kind(examples)
        raise RequestError(f"'examples' must be a list of at least one example, not {found}.", fix=_EXAMPLES)
    context = _serialized(document["context"], "'context'") if "context" in document else b""
    array = np.empty(len(examples), dtype=object)
    # Protobuf merges what is concatenated: what an example says comes after the context, and wins.
    array[:] = [context + _serialized(example, f"examples[{index}]") for index, example in enumerate(examples)]
    return PredictRequest(signature_name, method, {INPUT: array})


def encode_classes(outputs: Outputs, request: PredictRequest) -> bytes:
    """Return `{"results": [[[label, score], …], …]}`; a label or score that the model lacks is "" or 0."""
    rows = len(request.inputs[INPUT])
    classes, scores = outputs.get(CLASSES), outputs.get(SCORES)
    for name, array, kinds in ((CLASSES, classes, "OS"), (SCORES, scores, "f")):
        if array is None:
            continue
        if array.ndim != 2:
            raise _bad(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}.")
        if array.dtype.kind not in kinds:
            raise _bad(f"Expected {name} Tensor of {'DT_STRING' if kinds == 'OS' else 'DT_FLOAT'}. Got: {array.dtype}.")
        if len(array) != rows:
            raise _bad(f"Expected {name} output batch size of {rows}. Got: {len(array)}.")
    found = [array for array in (classes, scores) if array is not None]
    if len({array.shape[1] for array in found}) > 1:
        raise _bad(f"Tensors class and score should match in dim_size(1). Got {[a.shape[1] for a in found]}.")
    width = found[0].shape[1]
    labels = [[""] * width] * rows if classes is None else [[_text(label) for label in row] for row in classes.tolist()]
    numbers = [[0.0] * width] * rows if scores is None else shortest(scores).tolist()
    pairs = [[list(pair) for pair in zip(*columns, strict=True)] for columns in zip(labels, numbers, strict=True)]
    return _results(pairs)


def encode_values(outputs: Outputs, request: PredictRequest) -> bytes:
    """Return `{"results": [value, …]}`, one value an example."""
    array = outputs[VALUES]
    rows = len(request.inputs[INPUT])
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        shape = list(array.shape)
        raise _bad(f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {shape}.")
    if len(array) != rows:
        raise _bad(f"Input batch size did not match output batch size: {rows} vs. {len(array)}.")
    if array.dtype.kind != "f":
        raise _bad(f"Expected output Tensor of DT_FLOAT. Got: {array.dtype}.")
    return _results(shortest(array.reshape(-1)).tolist())


def _check_signature(method: str, signature: Signature) -> None:
    wanted = f"tensorflow/serving/{method}"
    noun = _NOUNS[method]
    if signature.method_name != wanted:
        raise RequestError(
            f"Expected {noun} signature method_name to be {wanted}. Was: {signature.method_name}.",
            code="INVALID_ARGUMENT",
            fix="Use :predict, or name a signature of that method.",
        )
    if len(signature.inputs) != 1:
        raise RequestError("Expected one input Tensor.", code="INVALID_ARGUMENT", fix=_PREDICT)
    if INPUT not in signature.inputs:
        raise RequestError(f"No {noun} inputs found in SignatureDef.", code="FAILED_PRECONDITION", fix=_PREDICT)
    outputs = {CLASSES, SCORES} if method == "classify" else {VALUES}
    if not outputs & signature.outputs.keys():
        raise RequestError(f"No {noun} outputs found in SignatureDef.", code="FAILED_PRECONDITION", fix=_PREDICT)


def _serialized(value: Any, where: str) -> bytes:
    import tensorflow as tf

    if not isinstance(value, dict):
        raise RequestError(f"Example must be a JSON object, but {where} is {kind(value)}.", fix=_EXAMPLES)
    example = tf.train.Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            _add(feature, item, name)
    return bytes(example.SerializeToString())


def _add(feature: Any, value: Any, name: str) -> None:
    """Add one value: whole numbers and booleans are int64, decimals float, text and b64 bytes; never a mixture."""
    if isinstance(value, (bool, int)):
        if not -(2**63) <= value < 2**63:
            raise RequestError(
                f"Feature: {name} has uint64 element. Only int64 is supported.",
                fix="Send whole numbers from -2**63 to 2**63 - 1.",
            )
        list_name, stored = "int64_list", int(value)
    elif isinstance(value, float):
        if abs(value) > _FLOAT32_MAX and np.isfinite(value):
            raise RequestError(
                f"Cannot convert JSON value: {value} to float without loss of precision.",
                fix="Send a number that a float32 can hold.",
            )
        list_name, stored = "float_list", value  # type: ignore[assignment]
    elif isinstance(value, str):
        list_name, stored = "bytes_list", value.encode()  # type: ignore[assignment]
    elif isinstance(value, dict):
        list_name, stored = "bytes_list", bytes_of(value, f"Feature: {name}")  # type: ignore[assignment]
    else:
        raise RequestError(
            f"Feature: {name} has element with unexpected JSON type: {kind(value)}.",
            fix='Send numbers, booleans, text, {"b64": "…"}, or one list of them.',
        )
    if feature.WhichOneof("kind") not in (None, list_name):
        expected = feature.WhichOneof("kind").removesuffix("_list")
        raise RequestError(
            f"Unexpected element type in feature: {name} expecting type: {expected}.",
            fix="Send values of one type in a feature: 1.0 is a float, 1 is not.",
        )
    getattr(feature, list_name).value.append(stored)


def _results(values: Any) -> bytes:
    return json.dumps({"results": values}, ensure_ascii=False).encode()


def _text(label: Any) -> str:
    return bytes(label).decode("utf-8", "replace")


def _bad(message: str) -> Refusal:
    return Refusal(message, code="INVALID_ARGUMENT", fix=_PREDICT)
