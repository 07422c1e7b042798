"""The report on real models: the JSON contract, and the findings that it must and must not have."""

import json
import shutil
from pathlib import Path

import pytest
from tests.bad_models.fuzz import MemoryDirectory

from servegraph.errors import InputError
from servegraph.inspect_graph.inspect import Inspection, inspect, inspect_directory
from servegraph.inspect_graph.integrity import PARALLEL_BYTES, verify_tensors
from servegraph.inspect_graph.rules import RULES
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.bundle_writer import BundleWriter
from servegraph.savedmodel.wire import encode_bytes, fields
from servegraph.storage import open_dir

MODELS = Path(__file__).parents[2] / "real_models"
SAVED = MODELS / "keras_saved"
STOCK = ["keras_dense", "keras_lookup", "keras_saved", "module", "v1_adam", "v1_partitioned"]


def look(name: str, platform: str | None = None) -> Inspection:
    return inspect(str(MODELS / name), verify=True, platform=platform)


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


def test_a_path_of_nothing_is_not_the_current_directory() -> None:
    with pytest.raises(InputError, match="empty"):
        inspect("")


def test_several_meta_graphs() -> None:
    assert look("v1_partitioned").tag_sets == [["serve"], ["serve", "gpu"]]


def test_dangerous_operations_are_found_in_the_function_library() -> None:
    messages = [item.message for item in look("unsafe").findings if item.code == "UNSAFE_OP"]
    for op in ("SaveV2", "PrintV2", "DatasetFromGraph"):
        assert any(op in message and "serving_default" in message for message in messages)


def test_a_model_that_only_python_can_load_is_an_error_where_tensorflow_serving_loads_it() -> None:
    for platform in (None, "local"):
        found = look("keras_saved", platform=platform)
        assert "RESTORED_IN_PYTHON_ONLY" in codes(found)
        assert not found.has_errors
    for platform in ("vertex", "kserve", "ai-platform"):
        found = look("keras_saved", platform=platform)
        assert "UNRESTORED_VARIABLE" in {item.code for item in found.findings if item.severity == "error"}


def test_a_model_without_an_object_graph_loads_with_the_saver_only() -> None:
    files = {str(path.relative_to(SAVED)): path.read_bytes() for path in SAVED.rglob("*") if path.is_file()}
    (meta_graph,) = (field for field in fields(files["saved_model.pb"]) if field.number == 2)
    content = files["saved_model.pb"][meta_graph.start : meta_graph.end]
    kept = [
        encode_bytes(field.number, content[field.start : field.end]) for field in fields(content) if field.number != 7
    ]
    files["saved_model.pb"] = encode_bytes(2, b"".join(kept))
    found = inspect_directory(MemoryDirectory(files)).findings
    assert "UNRESTORED_VARIABLE" in {item.code for item in found if item.severity == "error"}


def test_large_variables_are_verified_side_by_side(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "module", tmp_path / "model")
    block = bytes(range(256)) * 4096
    with BundleWriter(tmp_path / "model/variables/variables") as writer:
        for number in range(80):
            writer.add(f"part_{number:02}", "uint8", (len(block),), [block])
    data = tmp_path / "model/variables/variables.data-00000-of-00001"
    with data.open("r+b") as file:
        for number in (3, 77):
            file.seek(number * len(block) + 5)
            file.write(b"!")
    bundle = BundleReader(open_dir(tmp_path / "model"))
    assert sum(entry.size_bytes for entry in bundle.entries.values()) > PARALLEL_BYTES
    found = [item.message for item in verify_tensors(bundle)]
    bundle.close()
    assert [message.split("'")[1] for message in found] == ["part_03", "part_77"]


def test_weights_that_keras_lists_in_the_optimizer_are_no_state_of_it() -> None:
    (message,) = (item.message for item in look("keras_saved").findings if item.code == "OPTIMIZER_STATE")
    assert message.startswith("6 tensors, 132 bytes")
    assert "UNREAD_TENSORS" not in codes(look("keras_saved"))
