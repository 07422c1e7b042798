"""From the JSON of a predict request to arrays, checked against the signature.

The formats are those of TF Serving's REST API (g3doc/api_rest.md in tensorflow/serving): `instances`, a list
of rows, or `inputs`, a column for each input. Stricter than TF Serving in two ways: what the signature does
not name is an error in both formats, and so are the tokens NaN and Infinity, which JSON does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from servegraph.errors import RequestError
from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.arrays import Array, kind, to_array
from servegraph.serve.signatures import ServingGraph, shape_text

DEFAULT_SIGNATURE = "serving_default"
Format = Literal["row", "column"]


@dataclass(frozen=True)
class PredictRequest:
    """A checked request: its signature, its inputs as arrays, and the format that the answer has to have."""

    signature_name: str
    format: Format
    inputs: Mapping[str, Array]


def decode(body: bytes, graph: ServingGraph) -> PredictRequest:
    """Return the request that `body` holds.

    Raises:
        RequestError: it is not JSON, not a predict request, or does not match the signature.
    """
    document = _parse(body)
    signature_name = document.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(signature_name, str):
        raise RequestError(f"'signature_name' must be a string, not {kind(signature_name)}.")
    signature = graph.signatures.get(signature_name)
    if signature is None:
        raise RequestError(
            f"Serving signature name: {signature_name!r} not found in signature def.",
            fix=f"The model has: {', '.join(sorted(graph.signatures)) or 'none'}.",
        )
    if ("instances" in document) == ("inputs" in document):
        raise RequestError("A request has either 'instances' (rows) or 'inputs' (columns), exactly one of them.")
    if "instances" in document:
        form: Format = "row"
        columns = _columns_of_rows(document["instances"], signature)
    else:
        form = "column"
        columns = _columns(document["inputs"], signature)
    inputs = {name: to_array(value, name, signature.inputs[name]) for name, value in columns.items()}
    if graph.declares_shapes:
        for name, array in inputs.items():
            _check_shape(array.shape, name, signature.inputs[name])
    return PredictRequest(signature_name, form, inputs)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        # The parser stops at or right after the first character of a token that JSON does not have.
        token = body.decode("utf-8", "replace")[max(0, exc.pos - 1) : exc.pos + 9].lstrip("-+[,: \n\t")
        if token.startswith(("NaN", "nan", "Infinity", "inf")):
            raise RequestError(
                f"JSON Parse error: NaN or Infinity at offset: {exc.pos}; inputs must be finite numbers."
            ) from exc
        raise RequestError(f"JSON Parse error: {exc.msg} at offset: {exc.pos}.") from exc
    if not isinstance(document, dict):
        raise RequestError(f"A request is a JSON object, not {kind(document)}.")
    return document


def _columns_of_rows(rows: Any, signature: Signature) -> dict[str, Any]:
    if not isinstance(rows, list) or not rows:
        found = "an empty list" if rows == [] else kind(rows)
        raise RequestError(f"'instances' must be a list of at least one row, not {found}.")
    wanted = signature.inputs.keys()
    if not _is_named(rows[0]):
        if len(wanted) != 1:
            raise RequestError(
                f"Each of 'instances' must be an object with the keys: {', '.join(sorted(wanted))}; "
                f"the first is {kind(rows[0])}."
            )
        (name,) = wanted
        return {name: rows}
    for index, row in enumerate(rows):
        if not _is_named(row):
            raise RequestError(f"instances[{index}] is {kind(row)}, the ones before it are objects.")
        if row.keys() != wanted:
            raise RequestError(f"instances[{index}] {_difference(row.keys(), wanted)}")
    return {name: [row[name] for row in rows] for name in wanted}


def _columns(columns: Any, signature: Signature) -> dict[str, Any]:
    wanted = signature.inputs.keys()
    if not _is_named(columns):
        if len(wanted) != 1:
            raise RequestError(
                f"'inputs' must be an object with the keys: {', '.join(sorted(wanted))}; it is {kind(columns)}."
            )
        (name,) = wanted
        return {name: columns}
    if columns.keys() != wanted:
        raise RequestError(f"'inputs' {_difference(columns.keys(), wanted)}")
    return dict(columns)


def _is_named(value: Any) -> bool:
    """Whether `value` is an object of named inputs, and not one that carries bytes."""
    return isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str))


def _difference(found: Any, wanted: Any) -> str:
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    parts = [f"lacks the inputs {missing}"] if missing else []
    parts += [f"has {extra}, which the signature does not"] if extra else []
    return " and ".join(parts) + f". Inputs of the signature: {', '.join(sorted(wanted))}."


def _check_shape(shape: tuple[int, ...], name: str, info: TensorInfo) -> None:
    if info.shape is None:
        return
    # A fixed batch is the graph's own matter: one that needs it says so, others answer any, as with TF
    # Serving.
    if len(shape) == len(info.shape) and all(
        want in (None, have) for have, want in zip(shape[1:], info.shape[1:], strict=True)
    ):
        return
    # Keras models with one column per feature want [batch, 1]: the mistake made most often.
    fix = "Put each value in a list of its own." if info.shape == (None, 1) and len(shape) == 1 else ""
    raise RequestError(
        f"Input {name!r} has the shape {list(shape)}, the signature has {shape_text(info.shape)}.", fix=fix
    )
