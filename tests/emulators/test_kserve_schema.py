"""The emulator's fields of an InferenceService against the published models: those of the package `kserve`.

That package brings seventy others and a client that breaks with newer ones, so it is no dependency of the tests:
`pip install --no-deps kserve`, whose models are read here without importing it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
from typing import Any

import pytest
from tests.emulators.kserve import PREDICTOR, QUANTITY

KINDS = {"int": int, "str": str}


def published(model: str) -> dict[str, str]:
    """Return the fields of a model, in JSON's spelling, with their types."""
    file_name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", model).lower() + ".py"
    files = importlib.metadata.files("kserve") or []
    (file,) = [file for file in files if file.name == file_name and file.parent.name == "models"]
    tree = ast.parse(file.read_text())
    found: dict[str, Any] = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("openapi_types", "attribute_map")
    }
    return {found["attribute_map"][name]: kind for name, kind in found["openapi_types"].items()}


def differences(fields: dict[str, Any], model: str) -> list[str]:
    theirs, found = published(model), []
    for name, kind in fields.items():
        if name not in theirs:
            found.append(f"{model} has no {name}")
        elif isinstance(kind, dict) and theirs[name].startswith("V1beta1"):
            found += differences(kind, theirs[name])
        elif isinstance(kind, dict):
            # Kubernetes' own: resources, with maps of quantities.
            assert theirs[name] == "V1ResourceRequirements" and kind.keys() == {"requests", "limits"}
            assert all(amounts == {"*": QUANTITY} for amounts in kind.values())
        elif KINDS.get(theirs[name]) is not kind:
            found.append(f"{model}.{name} is {theirs[name]}")
    return found


def test_the_fields_are_those_that_are_published():
    try:
        importlib.metadata.version("kserve")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("kserve is not installed; see above")
    assert differences(PREDICTOR, "V1beta1PredictorSpec") == []
    assert differences({"storageURI": str, "minReplicas": str}, "V1beta1PredictorSpec") == [
        "V1beta1PredictorSpec has no storageURI",
        "V1beta1PredictorSpec.minReplicas is int",
    ]
