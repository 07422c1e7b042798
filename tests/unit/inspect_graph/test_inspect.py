"""The report on real models: the JSON contract, and the findings that it must and must not have."""

import json
from pathlib import Path

import pytest

from servegraph.inspect_graph.findings import RULES
from servegraph.inspect_graph.inspect import Inspection, inspect

MODELS = Path(__file__).parents[2] / "real_models"
STOCK = ["keras_dense", "keras_lookup", "module", "v1_adam", "v1_partitioned"]


def look(name: str) -> Inspection:
    return inspect(str(MODELS / name), verify=True)


def codes(inspection: Inspection) -> set[str]:
    return {item.code for item in inspection.findings}


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_export_has_no_errors(name: str) -> None:
    assert [item for item in look(name).findings if item.severity == "error"] == []


def test_the_json_contract() -> None:
    report = json.loads(json.dumps(look("module").to_json()))
    files = {item["path"]: item for item in report["files"]}
    assert report["size_bytes"] == sum(path.stat().st_size for path in (MODELS / "module").rglob("*") if path.is_file())
    assert files["assets/vocabulary.txt"] == {"path": "assets/vocabulary.txt", "bytes": 6, "role": "asset"}
    (meta_graph,) = report["meta_graphs"]
    assert meta_graph["tags"] == ["serve"]
    signature = meta_graph["signatures"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"]["dtype"] == "float32"
    assert signature["inputs"]["x"]["shape"] == [None, 4]
    assert set(report["variables"]) >= {"count", "bytes", "duplicate_bytes"}
    assert report["variables"]["count"] == 8
    for item in report["findings"]:
        assert set(item) >= {"code", "severity", "message", "fix"}
        assert item["code"] in RULES


def test_several_meta_graphs() -> None:
    assert look("v1_partitioned").tag_sets == [["serve"], ["serve", "gpu"]]


def test_dangerous_operations_are_found_in_the_function_library() -> None:
    messages = [item.message for item in look("unsafe").findings if item.code == "UNSAFE_OP"]
    for op in ("SaveV2", "PrintV2", "DatasetFromGraph"):
        assert any(op in message and "serving_default" in message for message in messages)


def test_a_model_that_tensorflow_serving_cannot_serve_is_an_error() -> None:
    assert "UNRESTORED_VARIABLE" in codes(look("keras_saved"))
    assert look("keras_saved").has_errors
