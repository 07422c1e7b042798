"""Each finding that needs no damage: models built so that exactly one thing is odd."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest
from tests.bad_models.build import (
    FLOAT,
    STRING,
    entry,
    graph,
    node,
    placeholder,
    saved_model,
    signature,
    tensor_info,
    write,
)
from tests.bad_models.fuzz import MemoryDirectory
from tests.bad_models.hostile_bundles import index_of
from tests.bad_models.hostile_bundles import tensor as stored

from servegraph.inspect_graph.examples import request_example
from servegraph.inspect_graph.explanations import explanations
from servegraph.inspect_graph.findings import MAX_OF_A_CODE, condensed, finding
from servegraph.inspect_graph.inspect import inspect, inspect_directory
from servegraph.inspect_graph.platforms import check_platform
from servegraph.inspect_graph.runtimes import RUNTIMES, compatibility
from servegraph.inspect_graph.signatures import check_signatures
from servegraph.routine.manifest import MANIFEST, Routine
from servegraph.savedmodel.dtypes import BY_NAME
from servegraph.savedmodel.graph import SavedModelGraph, Signature, TensorInfo
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.wire import encode_bytes, encode_number
from servegraph.storage.directory import FileInfo

TODAY = date(2026, 11, 23)
GB = 10**9
INT64 = BY_NAME["int64"].number
PLAIN = graph([placeholder(), node("y", "Identity", ("x",))])


def model(inputs: Mapping[str, bytes], outputs: Mapping[str, bytes], version: str = "2.21.0", *more: bytes) -> bytes:
    """A model with one signature of these tensors."""
    info = encode_bytes(4, b"serve") + encode_bytes(5, version.encode())
    default = entry("serving_default", signature(dict(inputs), dict(outputs)))
    meta_graph = encode_bytes(1, info) + encode_bytes(2, PLAIN) + encode_bytes(5, default) + b"".join(more)
    return encode_bytes(2, meta_graph)


def read(content: bytes) -> SavedModelGraph:
    return read_saved_model(MemoryDirectory({"saved_model.pb": content}))


def codes(content: bytes) -> dict[str, str]:
    return {item.code: item.severity for item in check_signatures(read(content))}


X, Y = tensor_info("x:0", FLOAT, (-1, 4)), tensor_info("y:0", FLOAT, (-1, 3))


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ({"x": X}, {"y": Y}, {}),
        ({"x": tensor_info("x:0", FLOAT, (1, 4))}, {"y": Y}, {"FIXED_BATCH": "error"}),
        ({"x": X}, {"y": tensor_info("y:0", FLOAT, (8, 3))}, {"FIXED_BATCH": "error"}),
        ({"x": tensor_info("x:0", INT64, (2,))}, {"y": Y}, {"FIXED_BATCH": "error"}),
        (
            {"x": tensor_info("x:0", INT64, (-1, 2)), "x_1": X, "x_2": tensor_info("x_2:0", INT64, (2,))},
            {"y": Y},
            {"ENCODED_TENSOR": "warning"},
        ),
        ({"x": X}, {"y": tensor_info("y:0", FLOAT, ())}, {"NO_BATCH": "warning"}),
        ({"x": tensor_info("x:0", FLOAT, ())}, {"y": Y}, {"NO_BATCH": "warning"}),
        ({}, {"y": tensor_info("y:0", FLOAT, (3,))}, {"NO_BATCH": "warning"}),
        ({"x": tensor_info("x:0", FLOAT, (-1, -1, 4))}, {"y": Y}, {"UNKNOWN_SIZE": "info"}),
        ({"b64": X}, {"y": Y}, {"UNSENDABLE_NAME": "warning"}),
        ({"a\nb": X}, {"y": Y}, {"UNSENDABLE_NAME": "warning"}),
        ({"": X}, {"y": Y}, {"UNSENDABLE_NAME": "warning"}),
        ({"größe": X}, {"y": Y}, {}),
        ({"x": tensor_info("x:0", BY_NAME["complex64"].number)}, {"y": Y}, {"UNSENDABLE_DTYPE": "warning"}),
        ({"x": X}, {"y": tensor_info("y:0", 999)}, {"UNSENDABLE_DTYPE": "warning"}),
        (
            {"x": encode_number(2, FLOAT) + encode_bytes(3, encode_number(3, 1))},
            {"y": Y},
            {"UNKNOWN_RANK": "warning"},
        ),
        (
            {
                "x": encode_number(2, FLOAT)
                + encode_bytes(3, encode_bytes(2, encode_number(1, -1)))
                + encode_bytes(4, encode_bytes(1, b"values:0"))
            },
            {"y": Y},
            {"ENCODED_TENSOR": "warning"},
        ),
    ],
)
def test_signature(inputs: dict[str, bytes], outputs: dict[str, bytes], expected: dict[str, str]) -> None:
    assert codes(model(inputs, outputs)) == expected


def test_a_model_that_cannot_be_asked() -> None:
    assert codes(encode_bytes(2, encode_bytes(1, encode_bytes(4, b"eval")) + encode_bytes(2, PLAIN))) == {
        "NO_SERVING_TAG": "error",
        "NO_SIGNATURE": "error",
    }


@pytest.mark.parametrize(
    ("default", "said"),
    [
        (encode_number(1, FLOAT) + encode_bytes(2, encode_bytes(2, encode_number(1, 3))), ""),
        (encode_number(1, INT64), "is int64, and the input float32"),
        (encode_number(1, FLOAT), "has the shape [], and the input [None]"),
        (encode_number(1, FLOAT) + encode_bytes(2, encode_bytes(2, encode_number(1, -3))), "has the shape [None]"),
    ],
)
def test_a_default_that_is_no_value_of_its_input(default: bytes, said: str) -> None:
    with_default = signature({"x": tensor_info("x:0", FLOAT)}, {"y": Y}) + encode_bytes(4, entry("x", default))
    of_tf2 = encode_bytes(5, entry("serving_default", with_default)) + encode_bytes(7, b"")
    meta_graph = encode_bytes(1, encode_bytes(4, b"serve")) + encode_bytes(2, PLAIN) + of_tf2
    found = [item for item in check_signatures(read(encode_bytes(2, meta_graph))) if item.code == "BAD_DEFAULT"]
    assert len(found) == bool(said)
    assert not found or said in found[0].message


def test_what_an_estimator_trains_and_evaluates_with_is_no_interface() -> None:
    """The fixed and missing batches of losses and metrics are no fault of a model that is served without them."""
    metric = signature({"x": X}, {"loss": Y, "metric": tensor_info("y:0", FLOAT, [0])})
    graphs = b""
    for tag, method in (("train", b"supervised/training"), ("eval", b"supervised/eval")):
        its = entry(
            tag,
            metric.replace(encode_bytes(3, b"tensorflow/serving/predict"), encode_bytes(3, b"tensorflow/" + method)),
        )
        graphs += encode_bytes(2, encode_bytes(1, encode_bytes(4, tag.encode())) + encode_bytes(5, its))
    found = list(check_signatures(read(graphs + model({"x": X}, {"y": Y}))))
    assert [(item.code, item.severity) for item in found] == [("TRAINING_GRAPH", "warning")] * 2
    assert "[eval] has eval" in found[1].message


def test_two_meta_graphs_of_the_same_tags() -> None:
    assert codes(model({"x": X}, {"y": Y}) * 2) == {"SAME_TAGS": "warning"}


def test_signatures_of_other_names_and_methods() -> None:
    content = signature({"x": X}, {"y": Y}).replace(b"serving/predict", b"serving/regress")
    other = encode_bytes(1, encode_bytes(4, b"serve")) + encode_bytes(5, entry("other", content))
    assert codes(encode_bytes(2, other)) == {
        "NO_SERVING_DEFAULT": "warning",
        "NO_PREDICT_SIGNATURE": "warning",
    }


INDEX, SHARD = "variables/variables.index", "variables/variables.data-00000-of-00001"
FLOATS = stored(FLOAT, [4], size=16)


def made(content: bytes, index: bytes = b"", shard: bytes = b"") -> dict[str, bytes]:
    """The files of a model; without an index it has no variables."""
    return {"saved_model.pb": content} | ({INDEX: index, SHARD: shard} if index else {})


def unasked(*nodes: bytes) -> bytes:
    """A model with nodes that its signature does not reach."""
    return saved_model(graph([placeholder(), node("y", "Identity", ("x",)), *nodes]))


@pytest.mark.parametrize(
    ("files", "code", "severity"),
    [
        (made(saved_model(PLAIN), index_of(a=stored(FLOAT, [4], size=12)), bytes(12)), "BAD_ENTRY_SIZE", "error"),
        (made(saved_model(PLAIN), index_of(header=encode_number(2, 1), a=FLOATS), bytes(16)), "BIG_ENDIAN", "warning"),
        (made(saved_model(PLAIN), index_of(a=FLOATS), bytes(20)), "UNUSED_BYTES", "info"),
        (
            made(saved_model(PLAIN), index_of(a=FLOATS), bytes(16)) | {SHARD.replace("1", "2"): b""},
            "ORPHAN_SHARD",
            "warning",
        ),
        (
            made(saved_model(PLAIN), index_of(a=FLOATS, b=stored(FLOAT, [4], offset=16, size=16)), bytes(32)),
            "DUPLICATE_TENSORS",
            "warning",
        ),
        (made(saved_model(graph([placeholder(), node("y", "L2Loss", ("x",))]))), "TRAINING_OPS", "warning"),
        (made(unasked(node("loss", "L2Loss", ("x",)))), "TRAINING_OPS_STORED", "info"),
        (made(unasked(node("read", "ReadFile", ("x",)))), "UNSAFE_OP_STORED", "warning"),
        (made(saved_model(graph([placeholder(), node("y", "BoostedTreesBucketize", ("x",))]))), "LOST_KERNEL", "error"),
    ],
)
def test_one_odd_thing(files: dict[str, bytes], code: str, severity: str) -> None:
    found = {item.code: item.severity for item in inspect_directory(MemoryDirectory(files)).findings}
    assert found == {code: severity}


def test_the_saver_of_a_frozen_graph_may_name_nothing() -> None:
    saver = (
        encode_bytes(1, b"save/Const:0") + encode_bytes(2, b"save/Identity:0") + encode_bytes(3, b"save/restore_all")
    )
    frozen = saved_model(PLAIN, encode_bytes(3, saver))
    with_variables = made(frozen, index_of(a=FLOATS), bytes(16))
    alone, restored = (
        inspect_directory(MemoryDirectory(files), verify=True) for files in (made(frozen), with_variables)
    )
    assert not alone.findings
    assert "GRAPH_INCONSISTENT" in {item.code for item in restored.findings}


def test_files_that_do_not_belong(tmp_path: Path) -> None:
    write(tmp_path, model({"x": X}, {"y": Y}))
    for name in ("saved_model.pbtxt", "notes.txt", "model.ckpt-1.index", "events.out.tfevents.1"):
        (tmp_path / name).write_text("x")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/unused.txt").write_text("x")
    (tmp_path / "alias.txt").symlink_to("notes.txt")
    found = {item.code for item in inspect(str(tmp_path)).findings}
    assert found == {"TWO_GRAPHS", "STRAY_FILE", "STRAY_CHECKPOINT", "STRAY_SUMMARY", "UNUSED_ASSET", "LINK"}


def test_code_beside_the_graph_is_named() -> None:
    layer = b'{"config": {"name": "twice", "function_type": "lambda"}}'
    saved_object = encode_bytes(1, encode_bytes(3, b"root.layer-0") + encode_bytes(5, layer))
    files = {"saved_model.pb": model({"x": X}, {"y": Y}), "keras_metadata.pb": saved_object}
    (found,) = inspect_directory(MemoryDirectory(files)).findings
    assert found.code == "PYTHON_CODE"
    assert "'twice'" in found.message


def test_a_routine_is_named_and_not_run() -> None:
    files = {"saved_model.pb": model({"x": X}, {"y": Y})}
    routine = Routine("census:Census", "predictor", False, "c.whl", "c.tar.gz", ("six==1.17.0",))
    (found,) = inspect_directory(MemoryDirectory({**files, MANIFEST: routine.to_json().encode()})).findings
    assert (found.code, found.severity) == ("ROUTINE", "warning")
    assert "census:Census answers in place of the graph, which needs six==1.17.0" in found.message
    (found,) = inspect_directory(MemoryDirectory({**files, MANIFEST: b"{"})).findings
    assert (found.code, "cannot be used" in found.message) == ("ROUTINE", True)


def test_many_findings_of_one_kind_are_counted(tmp_path: Path) -> None:
    found = condensed([finding("STRAY_FILE", f"{number}") for number in range(1000)] + [finding("NO_SIGNATURE", "x")])
    assert [item.code for item in found] == ["NO_SIGNATURE"] + ["STRAY_FILE"] * MAX_OF_A_CODE
    assert "And 980 more" in found[-1].message


def test_constants_are_reported() -> None:
    tensor = encode_bytes(
        5, encode_bytes(1, b"value") + encode_bytes(2, encode_bytes(8, encode_bytes(4, bytes(40_000_000))))
    )
    content = saved_model(graph([placeholder(), node("c", "Const", (), tensor), node("y", "Identity", ("x",))]))
    inspection = inspect_directory(MemoryDirectory({"saved_model.pb": content}))
    assert "FROZEN_CONSTANTS" in {item.code for item in inspection.findings}
    assert inspection.memory_bytes is not None
    assert inspection.memory_bytes > 5 * 40_000_000


# Platforms


def on(platform: str, content: bytes, size_bytes: int = 1000, file_count: int = 3) -> dict[str, str]:
    files = [FileInfo(f"assets/{number}", size_bytes // file_count) for number in range(file_count)]
    graph_read = read(content)
    needed = frozenset(graph_read.meta_graphs[0].main.ops)
    return {item.code: item.message for item in check_platform(platform, files, graph_read, needed, TODAY)}


def test_a_model_that_deploys() -> None:
    assert set(on("vertex", model({"x": X}, {"y": Y}, "2.15.1"))) == {"OLD_RUNTIME", "EXPLANATIONS"}
    assert set(on("kserve", model({"x": X}, {"y": Y}, "2.6.0"))) == {"EXPLANATIONS"}
    assert set(on("local", model({"x": X}, {"y": Y}))) == {"EXPLANATIONS"}


def test_the_limits_of_a_platform() -> None:
    sound = model({"x": X}, {"y": Y}, "2.11.0")
    assert "PLATFORM_ENDED" in on("ai-platform", sound)
    assert "OVER_SIZE_LIMIT" not in on("ai-platform", sound, size_bytes=9 * GB)
    assert "OVER_SIZE_LIMIT" in on("ai-platform", sound, size_bytes=11 * GB)
    assert "TOO_MANY_FILES" in on("ai-platform", sound, size_bytes=5000, file_count=1001)
    assert "NO_MACHINE" in on("vertex", sound, size_bytes=900 * GB)
    assert "BINARY_NAME" in on("ai-platform", model({"image": tensor_info("x:0", STRING)}, {"y": Y}, "2.11.0"))


def test_a_platform_calls_the_default_signature() -> None:
    content = encode_bytes(2, encode_bytes(1, encode_bytes(4, b"serve")) + encode_bytes(5, entry("other", b"")))
    assert "NO_DEFAULT_FOR_PLATFORM" in on("vertex", content)
    assert "NO_DEFAULT_FOR_PLATFORM" not in on("kserve", content)


@pytest.mark.parametrize(("method", "is_callable"), [("classify", True), ("regress", True), ("implore", False)])
def test_a_platform_calls_what_tensorflow_serving_can(method: str, *, is_callable: bool) -> None:
    content = _with_method(f"tensorflow/serving/{method}")
    assert ("NO_DEFAULT_FOR_PLATFORM" not in on("vertex", content)) == is_callable


def _with_method(method: str) -> bytes:
    default = encode_bytes(1, entry("x", X)) + encode_bytes(2, entry("y", Y)) + encode_bytes(3, method.encode())
    info = encode_bytes(1, encode_bytes(4, b"serve"))
    return encode_bytes(2, info + encode_bytes(5, entry("serving_default", default)))


@pytest.mark.parametrize(
    ("version", "ops", "verdicts"),
    [
        ("2.6.0", {"MatMul"}, {"2.6": "loads", "2.15": "loads", "2.21": "loads"}),
        ("2.21.0", {"MatMul"}, {"2.6": "not_promised", "2.15": "not_promised", "2.21": "loads"}),
        (
            "2.21.0",
            {"DisableCopyOnRead"},
            {"2.6": "lacks_operations", "2.15": "not_promised", "2.21": "loads"},
        ),
        # DecodeWebP came after 2.15 and was there in 2.21: of 2.20 nobody looked.
        ("2.21.0", {"DecodeWebP"}, {"2.15": "lacks_operations", "2.20": "unknown", "2.21": "loads"}),
        ("2.21.0", {"MyOwnOp"}, {"2.6": "unknown", "2.21": "unknown"}),
        ("", {"MatMul"}, {"2.6": "unknown", "2.21": "unknown"}),
    ],
)
def test_runtimes(version: str, ops: set[str], verdicts: dict[str, str]) -> None:
    found = {item.runtime.tf_version: item.verdict for item in compatibility(read(model({}, {}, version)), ops)}
    assert {key: found[key] for key in verdicts} == verdicts
    assert len(found) == len(RUNTIMES)


@pytest.mark.parametrize(
    ("platform", "inputs", "outputs", "version", "today", "possible", "says"),
    [
        ("vertex", {"x": X}, {"y": Y}, "2.15.0", TODAY, True, "2027-03-16"),
        ("vertex", {"x": X}, {"y": Y}, "2.21.0", TODAY, True, "sampled Shapley alone"),
        ("vertex", {"x": X}, {"y": Y}, "2.15.0", date(2027, 4, 1), False, "ended"),
        ("vertex", {"x": tensor_info("x:0", STRING)}, {"y": Y}, "2.15.0", TODAY, False, "serialized"),
        ("vertex", {"x": X}, {"y": tensor_info("y:0", STRING)}, "2.15.0", TODAY, False, "numeric"),
        ("vertex", {}, {}, "2.15.0", TODAY, False, "numeric"),
        ("ai-platform", {"x": X}, {"y": Y}, "2.11.0", TODAY, False, "shut down"),
        ("ai-platform", {"x": X}, {"y": Y}, "2.12.0", TODAY, False, "2.12.0"),
        ("kserve", {"x": X}, {"y": Y}, "2.15.0", TODAY, False, "no explanations of its own"),
    ],
)
def test_explanations(platform, inputs, outputs, version, today, possible, says) -> None:
    answer = explanations(platform, read(model(inputs, outputs, version)), today)
    assert answer.possible == possible
    assert says in answer.reason


# Examples of requests


def tensor(dtype: str, *shape: int | None) -> TensorInfo:
    return TensorInfo(("t:0",), dtype, shape, "dense")


@pytest.mark.parametrize(
    ("name", "inputs", "text"),
    [
        ("serving_default", {"x": tensor("float32", None, 2)}, '{"instances": [[0.0, 0.0]]}'),
        ("other", {"x": tensor("int64", None)}, '{"signature_name": "other", "instances": [0]}'),
        (
            "serving_default",
            {"age": tensor("float32", None, 1), "job": tensor("string", None), "ok": tensor("bool", None)},
            '{"instances": [{"age": [0.0], "job": "text", "ok": false}]}',
        ),
        ("serving_default", {"image": tensor("uint8", None, 224, 224, 1)}, '{"instances": [[[[0], …], …]]}'),
        ("serving_default", {}, '{"instances": [{}]}'),
        # What has no batch cannot be asked row by row.
        (
            "serving_default",
            {"x": tensor("float32", None, 2), "k": tensor("float32")},
            '{"inputs": {"x": [[0.0, 0.0]], "k": 0.0}}',
        ),
        ("serving_default", {"x": tensor("int64", 2, 1)}, '{"inputs": [[0], [0]]}'),
    ],
)
def test_request_example(name: str, inputs: dict[str, TensorInfo], text: str) -> None:
    example = request_example(name, Signature("", inputs, {}))
    assert example.text == text
    assert example.is_whole == ("…" not in text)


def test_a_long_request_is_copied_whole() -> None:
    inputs = {"image": tensor("uint8", None, 28, 28), "name": tensor("string", None)}
    example = request_example("serving_default", Signature("", inputs, {}))
    assert json.loads(example.recipe) == {
        "instances": [{"image": {"sizes": [28, 28], "of": 0}, "name": {"sizes": [], "of": "text"}}]
    }
    assert not request_example("x", Signature("", {"short": tensor("int32", None, 3)}, {})).recipe
    assert not request_example("x", Signature("", {"volume": tensor("int32", None, 999, 999, 9)}, {})).recipe


@pytest.mark.parametrize("shape", [(2**40, 0), (2,) * 200, (0, 2**62), (3,) * 200])
def test_a_request_is_short_whatever_the_shape(shape: tuple[int, ...]) -> None:
    example = request_example("serving_default", Signature("", {"x": tensor("float32", None, *shape)}, {}))
    assert len(example.text) < 3000
    assert not example.recipe


def test_a_signature_with_one_answer_for_all_rows_is_asked_by_column() -> None:
    signature = Signature("", {"x": tensor("float32", None, 2)}, {"loss": tensor("float32")})
    assert request_example("train", signature).text == '{"signature_name": "train", "inputs": [[0.0, 0.0]]}'


def test_inputs_with_defaults_are_left_out() -> None:
    inputs = {"x": tensor("int32", None), "seed": tensor("int32", None)}
    assert request_example("serving_default", Signature("", inputs, {}, ("seed",))).text == '{"instances": [0]}'


def test_no_platform_is_unknown(tmp_path: Path) -> None:
    write(tmp_path, model({"x": X}, {"y": Y}))
    with pytest.raises(ValueError, match="is not a platform"):
        inspect(str(tmp_path), platform="mainframe")


@pytest.mark.parametrize(("op", "code"), [("NormalizeUTF8", "TEXT_OP"), ("NormalizeUTF7", "CUSTOM_OP")])
def test_operations_of_tensorflow_text_are_told_from_unknown_ones(op: str, code: str, tmp_path: Path) -> None:
    write(tmp_path, saved_model(graph([placeholder(), node("y", op, ("x",))])))
    [found] = [item for item in inspect(str(tmp_path)).findings if item.code in ("TEXT_OP", "CUSTOM_OP")]
    assert found.code == code
    assert op in found.message
