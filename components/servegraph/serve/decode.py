"""From the JSON of a predict request to arrays, checked against the signature.

The formats are those of TF Serving's REST API (g3doc/api_rest.md in tensorflow/serving): `instances`, a list
of rows, or `inputs`, a column for each input. Stricter than TF Serving in one way: what the signature does not name is
an error in both formats. The tokens NaN and Infinity, which JSON does not have, are numbers as with TF Serving.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Mapping, Set
from typing import Any, Literal, NamedTuple

import orjson

from servegraph.errors import RequestError
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE, Signature, TensorInfo
from servegraph.serve.arrays import Array, kind, to_array
from servegraph.serve.large_body import LARGE_BODY_BYTES, LargeBody, read_large_body
from servegraph.serve.signatures import ServingGraph, shape_text

Rows = Literal["row", "column"]
Format = Literal["row", "column", "classify", "regress"]

_FIX = "Send valid JSON in UTF-8."
# TensorFlow's convolutions take [rows, height, width, channels], and end the process where dimensions are missing.
_RANK_OF_IMAGES = 4

# Tokens that RapidJSON takes with kParseNanAndInfFlag and orjson does not; text in quotes is skipped over.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|-?\bInf(?:inity)?\b|-?\bNaN\b')


class PredictRequest(NamedTuple):
    """A checked request: its signature, its inputs as arrays, and the format that the answer has to have."""

    signature_name: str
    format: Format
    inputs: Mapping[str, Array]


def decode(body: bytes, graph: ServingGraph) -> PredictRequest:
    """Return the request that `body` holds.

    Raises:
        RequestError: it is not JSON, not a predict request, or does not match the signature.
    """
    large = read_large_body(body) if len(body) >= LARGE_BODY_BYTES else None
    if large is not None and (request := _decode_large(large, graph)) is not None:
        return request
    document = parse(body)
    # What was no array of numbers to simdjson is none to numpy, which would be long to find out.
    return request_of(document, graph, has_numbers_only=large is None and _has_numbers_only(body, document))


def request_of(document: Mapping[str, Any], graph: ServingGraph, *, has_numbers_only: bool = False) -> PredictRequest:
    """Return the request that a JSON document is; `has_numbers_only` where no other values are known to be in it.

    Raises:
        RequestError: it is not a predict request, or does not match the signature.
    """
    signature_name, signature = named_signature(document, graph)
    if ("instances" in document) == ("inputs" in document):
        raise RequestError(
            "A request has either 'instances' (rows) or 'inputs' (columns), exactly one of them.",
            fix="Send one of them.",
        )
    if "instances" in document:
        form: Format = "row"
        columns = _columns_of_rows(document["instances"], signature)
    else:
        form = "column"
        columns = _columns(document["inputs"], signature)
    inputs = {
        name: to_array(value, name, signature.inputs[name], has_numbers_only=has_numbers_only)
        for name, value in columns.items()
    }
    for name, array in inputs.items():
        _check_shape(array.shape, name, signature.inputs[name], graph)
    return PredictRequest(signature_name, form, inputs)


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`, in which NaN and the infinities may stand. Raises `RequestError`."""
    document = parse_any(body)
    if not isinstance(document, dict):
        raise RequestError(
            f"A request is a JSON object, not {kind(document)}.", fix='Send {"instances": […]} or {"inputs": …}.'
        )
    return document


def parse_any(body: bytes) -> Any:
    """Return the JSON value in `body`; see `parse`."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        if body.startswith(codecs.BOM_UTF8):  # as some tools of Windows write it
            return parse_any(body[len(codecs.BOM_UTF8) :])
        if b"NaN" not in body and b"Inf" not in body:
            raise RequestError(f"JSON Parse error: {exc.msg} at offset: {exc.pos}.", fix=_FIX) from exc
        return _parse_with_tokens(body)


def named_signature(document: Mapping[str, Any], graph: ServingGraph) -> tuple[str, Signature]:
    """Return the signature that a request names, in `signature_name` or in Vertex's `parameters`; else the default."""
    name = document.get("signature_name")
    if name is None:
        parameters = document.get("parameters")
        name = parameters.get("signature_name") if isinstance(parameters, dict) else None
    name = DEFAULT_SIGNATURE if name is None or name == "" else name
    if not isinstance(name, str):
        raise RequestError(
            f"'signature_name' must be a string, not {kind(name)}.",
            fix="Write its name in quotes, or leave it out for the default.",
        )
    signature = graph.signatures.get(name)
    if signature is None:
        raise RequestError(
            f"Serving signature name: {name!r} not found in signature def.",
            fix=f"The model has: {', '.join(sorted(graph.signatures)) or 'none'}.",
        )
    return name, signature


def _decode_large(large: LargeBody, graph: ServingGraph) -> PredictRequest | None:
    """Return the request of a large body that is one array of numbers, None where the usual way must see to it."""
    name, signature = named_signature({"signature_name": large.signature_name}, graph)
    if len(signature.inputs) != 1:
        return None
    ((input_name, info),) = signature.inputs.items()
    array = large.array(info)
    if array is None or not array.ndim:
        return None
    _check_shape(array.shape, input_name, info, graph)
    return PredictRequest(name, "row" if large.key == "instances" else "column", {input_name: array})


def _parse_with_tokens(body: bytes) -> Any:
    try:
        text = body.decode()
        document = json.loads(_TOKENS.sub(_python_token, text), parse_float=_finite)
        if r"\u" in text:  # which may be half a character, as orjson does not take it
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeDecodeError as exc:
        raise RequestError(
            f"JSON Parse error: invalid UTF-8 at offset: {exc.start}.", fix="Send the text in UTF-8."
        ) from exc
    except UnicodeEncodeError as exc:
        raise RequestError(
            "JSON Parse error: half of a surrogate pair stands in a text.",
            fix="Write both halves of the character, or the character itself.",
        ) from exc
    except json.JSONDecodeError as exc:
        raise RequestError(f"JSON Parse error: {exc.msg} at offset: {exc.pos}.", fix=_FIX) from exc
    except (RecursionError, ValueError) as exc:  # nested too deep, or a number of too many digits
        raise RequestError(f"JSON Parse error: {exc}.", fix=_FIX) from exc


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _python_token(found: re.Match[str]) -> str:
    text = found[0]
    if text == "-NaN":
        return "NaN"
    return text + "inity" if text.endswith("Inf") else text


def _has_numbers_only(body: bytes, document: Mapping[str, Any]) -> bool:
    """Whether no text, boolean or null stands in the values: every quote is one of the keys or the signature's name."""
    quotes = 2 * len(document) + 2 * isinstance(document.get("signature_name"), str)
    return body.count(b'"') == quotes and b"true" not in body and b"false" not in body and b"null" not in body


def _columns_of_rows(rows: Any, signature: Signature) -> dict[str, Any]:
    if not isinstance(rows, list) or not rows:
        found = "an empty list" if rows == [] else kind(rows)
        raise RequestError(
            f"'instances' must be a list of at least one row, not {found}.",
            fix="Send one row an example; a single one is a list of one.",
        )
    wanted = signature.inputs.keys()
    if not _is_named(rows[0]):
        if len(wanted) != 1:
            raise RequestError(
                f"Each of 'instances' must be an object with the keys: {', '.join(sorted(wanted))}; "
                f"the first is {kind(rows[0])}.",
                fix="Name the inputs in every row.",
            )
        (name,) = wanted
        return {name: rows}
    for index, row in enumerate(rows):
        if not _is_named(row):
            raise RequestError(
                f"instances[{index}] is {kind(row)}, the ones before it are objects.",
                fix="Name the inputs in every row, or in none.",
            )
        if not _is_enough(row.keys(), signature):
            raise RequestError(f"instances[{index}] {_difference(row.keys(), wanted)}", fix=_inputs(wanted))
        if row.keys() != rows[0].keys():
            raise RequestError(
                f"instances[{index}] has the inputs {sorted(row)}, the ones before it {sorted(rows[0])}.",
                fix="Leave an input that has a default out of all rows, or of none.",
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def _columns(columns: Any, signature: Signature) -> dict[str, Any]:
    wanted = signature.inputs.keys()
    if not _is_named(columns):
        if len(wanted) != 1:
            raise RequestError(
                f"'inputs' must be an object with the keys: {', '.join(sorted(wanted))}; it is {kind(columns)}.",
                fix="Name each input with its values.",
            )
        (name,) = wanted
        return {name: columns}
    if not _is_enough(columns.keys(), signature):
        raise RequestError(f"'inputs' {_difference(columns.keys(), wanted)}", fix=_inputs(wanted))
    return dict(columns)


def _is_named(value: Any) -> bool:
    """Whether `value` is an object of named inputs, and not one that carries bytes."""
    return isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str))


def _is_enough(names: Set[str], signature: Signature) -> bool:
    """Whether these are inputs of a signature, and all that it has no defaults for."""
    wanted = signature.inputs.keys()
    return names == wanted or wanted - {*signature.defaults} <= names <= wanted  # the first is fast: each row asks


def _difference(found: Any, wanted: Any) -> str:
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    parts = [f"lacks the inputs {missing}"] if missing else []
    parts += [f"has {extra}, which the signature does not"] if extra else []
    return " and ".join(parts) + "."


def _inputs(wanted: Any) -> str:
    return f"Inputs of the signature: {', '.join(sorted(wanted))}."


def _check_shape(shape: tuple[int, ...], name: str, info: TensorInfo, graph: ServingGraph) -> None:
    if info.shape is None:
        return
    if not graph.declares_shapes and not (len(shape) < _RANK_OF_IMAGES <= len(info.shape)):
        return
    # A fixed batch is the graph's own matter: one that needs it says so, others answer any, as with TF
    # Serving.
    if len(shape) == len(info.shape) and all(
        want in (None, have) for have, want in zip(shape[1:], info.shape[1:], strict=True)
    ):
        return
    # Keras models with one column per feature want [batch, 1]: the mistake made most often.
    is_flat = info.shape == (None, 1) and len(shape) == 1
    fix = "Put each value in a list of its own." if is_flat else "Nest the lists as the signature's shape is."
    raise RequestError(
        f"Input {name!r} has the shape {list(shape)}, the signature has {shape_text(info.shape)}.", fix=fix
    )
