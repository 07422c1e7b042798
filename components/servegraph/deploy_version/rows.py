"""Golden requests as the services take them, and what comes back by output: rows, and the columns of KServe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from servegraph.deploy_version.faults import CannotServe
from servegraph.savedmodel.golden_file import GoldenRequest
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE
from servegraph.serve.signatures import Signatures

MAX_REQUEST_BYTES = 1_500_000  # of both services; the catalogue has it with its source


def as_instances(request: GoldenRequest) -> list[Any] | None:
    """Return the request as one object a row, or None where it cannot be one: those services take rows, of
    `serving_default`, and not too many bytes. Of a routine's the service passes `instances` and `predictions` only.
    """
    if request.signature_name is None:
        instances = request.inputs.get("instances")
        is_passed = request.inputs.keys() == {"instances"} and request.outputs.keys() == {"predictions"}
        fits = is_passed and isinstance(instances, list) and len(json.dumps(instances)) < MAX_REQUEST_BYTES
        return instances if fits else None
    columns = list(request.inputs.values())
    if request.signature_name != DEFAULT_SIGNATURE or not columns:
        return None
    if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1:
        return None
    rows = [dict(zip(request.inputs, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows if len(json.dumps(rows)) < MAX_REQUEST_BYTES else None


def as_outputs(predictions: Any, request: GoldenRequest, signatures: Signatures) -> dict[str, list[Any]]:
    """Return predictions by output; a lone output comes without its name. Those of a routine are as they are.

    Raises:
        CannotServe: they are not what a server of the signature answers (code `BAD_PREDICTIONS`).
    """
    if not isinstance(predictions, list):
        raise _bad("Predictions should be a list", predictions)
    if request.signature_name is None:
        return {"predictions": predictions}
    names = list(signatures[request.signature_name].outputs)
    if len(names) == 1:
        return {names[0]: [_lone(row, names[0]) for row in predictions]}
    if not all(isinstance(row, Mapping) for row in predictions):
        raise _bad(f"Predictions should have {', '.join(names)} each", predictions)
    found = sorted({name for row in predictions for name in row})
    return {name: [row.get(name) for row in predictions] for name in found}


def as_columns(answer: Any, request: GoldenRequest, signatures: Signatures) -> dict[str, Any]:
    """Return the outputs of an answer in columns by their names; a lone one comes without its name.

    Raises:
        CannotServe: it has none, or not by their names (code `BAD_PREDICTIONS`).
    """
    names = list(signatures[request.signature_name or DEFAULT_SIGNATURE].outputs)
    if not isinstance(answer, Mapping) or "outputs" not in answer:
        raise _bad("The answer should have outputs", answer)
    outputs = answer["outputs"]
    if len(names) == 1:
        return {names[0]: outputs}
    if not isinstance(outputs, Mapping):
        raise _bad(f"The outputs should have {', '.join(names)}", outputs)
    return dict(outputs)


def _bad(what: str, got: Any) -> CannotServe:
    return CannotServe(
        f"{what}; got {json.dumps(got)[:200]}.",
        code="BAD_PREDICTIONS",
        fix="Check that the container serves this model.",
    )


def _lone(row: Any, name: str) -> Any:
    return row[name] if isinstance(row, Mapping) and set(row) == {name} else row
