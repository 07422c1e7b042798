"""The explanation metadata and parameters of a model, made from its signature.

Names of tensors are those that the SDK's own builders write (google/cloud/aiplatform/explain/metadata/tf): for a model
of TensorFlow 2 the names of the signature, for one of TensorFlow 1 the tensors in the graph. Containers that are not
Google's know no tensors: there the keys are the fields of an instance and of a prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

from servegraph.errors import InputError
from servegraph.explanations.rules import Method, numeric
from servegraph.savedmodel.graph import Signature, TensorInfo

METADATA_FILE = "explanation_metadata.json"  # beside the graph, for AI Platform
_MOST_IN_BASELINE = 1_000_000  # values: it goes into a request, and a signature may name any size


class _Row(NamedTuple):
    """A method: its field and its count in Vertex AI and in AI Platform, the count to begin with and the largest."""

    field: str
    vertex_count: str
    ai_platform_count: str
    default: int
    largest: int


# Ranges: the descriptions in aiplatform.v1; 50 steps are its "good value to start".
_ROWS: dict[Method, _Row] = {
    "sampled-shapley": _Row("sampledShapleyAttribution", "pathCount", "numPaths", 10, 50),
    "integrated-gradients": _Row("integratedGradientsAttribution", "stepCount", "numIntegralSteps", 50, 100),
    "xrai": _Row("xraiAttribution", "stepCount", "numIntegralSteps", 50, 100),
}


def vertex_spec(
    signature: Signature, method: Method, output: str | None, *, prebuilt: bool, is_tf1: bool
) -> dict[str, Any]:
    """Return the ExplanationSpec of Vertex AI; `prebuilt` where an image of Google's serves the model.

    Raises:
        InputError: which output is to be explained has to be said (code `WHICH_OUTPUT`).
    """
    row, name = _ROWS[method], explained_output(signature, output)
    inputs = {key: _vertex_input(key, info, prebuilt, is_tf1) for key, info in sorted(signature.inputs.items())}
    target = {"outputTensorName": _tensor(name, signature.outputs[name], is_tf1)} if prebuilt else {}
    return {
        "parameters": {row.field: {row.vertex_count: row.default}},
        "metadata": {"inputs": inputs, "outputs": {name: target}},
    }


def ai_platform_config(method: Method) -> dict[str, Any]:
    """Return the ExplanationConfig of AI Platform."""
    row = _ROWS[method]
    return {row.field: {row.ai_platform_count: row.default}}


def ai_platform_metadata(signature: Signature, output: str | None, *, is_tf1: bool) -> dict[str, Any]:
    """Return what `explanation_metadata.json` beside the graph says on AI Platform. Raises as `vertex_spec`."""
    name = explained_output(signature, output)
    inputs: dict[str, Any] = {}
    for key, info in sorted(signature.inputs.items()):
        baselines = _baselines(info)
        inputs[key] = {"input_tensor_name": _tensor(key, info, is_tf1)}
        inputs[key] |= {"input_baselines": baselines} if baselines else {}
    outputs = {name: {"output_tensor_name": _tensor(name, signature.outputs[name], is_tf1)}}
    return {"inputs": inputs, "outputs": outputs, "framework": "tensorflow"}


def explained_output(signature: Signature, wanted: str | None) -> str:
    """Return the output that is explained: the one that is wanted, or the only numeric one.

    Raises:
        InputError: it is not numeric, or there are several (code `WHICH_OUTPUT`).
    """
    names = numeric(signature.outputs)
    if wanted in names:
        return str(wanted)
    if wanted is None and len(names) == 1:
        return names[0]
    raise InputError(
        f"{wanted!r} is no numeric output." if wanted else "Several outputs are numeric, and one is explained.",
        code="WHICH_OUTPUT",
        fix=f"Name one of {', '.join(names)}: with --output of explain, --explain-output of deploy.",
    )


def count_problem(spec: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the counts of an ExplanationSpec's parameters, None where they are in range."""
    parameters = spec.get("parameters")
    for row in _ROWS.values():
        chosen = parameters.get(row.field) if isinstance(parameters, Mapping) else None
        count = chosen.get(row.vertex_count) if isinstance(chosen, Mapping) else None
        if isinstance(count, int) and not 1 <= count <= row.largest:
            return f"{row.field}.{row.vertex_count} is {count}, and may be from 1 to {row.largest}"
    return None


def _vertex_input(name: str, info: TensorInfo, prebuilt: bool, is_tf1: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"inputTensorName": _tensor(name, info, is_tf1)} if prebuilt else {}
    baselines = _baselines(info)
    return {**found, **({"inputBaselines": baselines} if baselines else {})}


def _tensor(name: str, info: TensorInfo, is_tf1: bool) -> str:
    return info.tensors[0] if is_tf1 and info.tensors else name


def _baselines(info: TensorInfo) -> list[Any]:
    """Return one baseline of zeros or empty texts in the shape of a row, none where that is not known or too large."""
    if info.shape is None or None in info.shape[1:]:
        return []
    if prod(max(size or 0, 1) for size in info.shape[1:]) > _MOST_IN_BASELINE:
        return []
    zero: Any = "" if info.dtype == "string" else False if info.dtype == "bool" else 0
    if info.dtype.startswith(("float", "bfloat")):
        zero = 0.0
    for size in reversed(info.shape[1:]):
        zero = [zero] * int(size or 0)
    return [zero]
