"""TF Serving's REST API, Vertex's and KServe's, case by case; docs/serve.md lists the same cases with their sources."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from servegraph.serve.child import ServerProcess
from servegraph.serve.state import ModelState, VersionRecord, write_state

MODELS = Path(__file__).parent / "models"
DOCUMENT = Path(__file__).parents[2] / "docs" / "serve.md"
NAN = float("nan")


class Case(NamedTuple):
    """One request and its answer; `answer` is the document, or a text in its error."""

    id: str
    path: str
    request: Any
    status: int
    answer: Any


def available(*numbers: int) -> dict[str, Any]:
    status = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": str(n), "state": "AVAILABLE", "status": status} for n in numbers]}


HALF, PEOPLE, ODD, EXAMPLES = (f"/v1/models/{name}" for name in ("half", "people", "odd", "examples"))
REGRESS = "tensorflow/serving/regress"
A_PERSON = {"age": [25], "job": ["clerk"]}

CASES = [
    Case("status", HALF, None, 200, {"name": "half", "ready": True, **available(1)}),
    Case("status-version", f"{PEOPLE}/versions/2", None, 200, available(2)),
    Case("status-label", f"{PEOPLE}/labels/canary", None, 200, available(2)),
    Case("status-all-versions", PEOPLE, None, 200, {"name": "people", "ready": True, **available(2, 1)}),
    Case("status-no-model", "/v1/models/no", None, 404, "Servable not found for request: Latest(no)"),
    Case("predict-row", f"{HALF}:predict", {"instances": [1.0, 2.0, 5.0]}, 200, {"predictions": [2.5, 3.0, 4.5]}),
    Case(
        "predict-row-named",
        f"{PEOPLE}:predict",
        {"instances": [{"age": 25, "job": "clerk"}]},
        200,
        {"predictions": [{"classes": "<=50K", "probabilities": [0.75, 0.25]}]},
    ),
    Case("predict-column", f"{HALF}:predict", {"inputs": {"x": [[1], [2]]}}, 200, {"outputs": [[2.5], [3.0]]}),
    Case("predict-column-unnamed", f"{HALF}:predict", {"inputs": [1.0]}, 200, {"outputs": [2.5]}),
    Case(
        "predict-column-several",
        f"{PEOPLE}:predict",
        {"inputs": A_PERSON},
        200,
        {"outputs": {"classes": ["<=50K"], "probabilities": [[0.75, 0.25]]}},
    ),
    Case("predict-scalar-input", f"{HALF}:predict", {"inputs": 1.0}, 200, {"outputs": 2.5}),
    Case(
        "predict-signature", f"{ODD}:predict", {"signature_name": "log", "instances": [1]}, 200, {"predictions": [0.0]}
    ),
    Case(
        "predict-version",
        f"{PEOPLE}/versions/2:predict",
        {"inputs": A_PERSON},
        200,
        {"outputs": {"classes": ["<=50K"], "probabilities": [[0.5, 0.5]]}},
    ),
    Case(
        "predict-label",
        f"{PEOPLE}/labels/canary:predict",
        {"inputs": A_PERSON},
        200,
        {"outputs": {"classes": ["<=50K"], "probabilities": [[0.5, 0.5]]}},
    ),
    Case(
        "b64-in-and-out",
        f"{ODD}:predict",
        {"signature_name": "reverse", "instances": [{"b64": "/wA="}, "text"]},
        200,
        {"predictions": [{"echo_bytes": {"b64": "/wA="}, "size": 2}, {"echo_bytes": {"b64": "dGV4dA=="}, "size": 4}]},
    ),
    Case("b64-bad", f"{ODD}:predict", {"signature_name": "reverse", "instances": [{"b64": "!"}]}, 400, "base64 decode"),
    Case(
        "nan-in-and-out",
        f"{ODD}:predict",
        {"signature_name": "log", "instances": [NAN, math.inf, 0]},
        200,
        {"predictions": [NAN, math.inf, -math.inf]},
    ),
    Case(
        "integers-exact",
        f"{ODD}:predict",
        {"signature_name": "swap", "instances": [{"n": [1, 2**63 - 1], "b": True}]},
        200,
        {"predictions": [{"b": False, "n": [2**63 - 1, 1]}]},
    ),
    Case("float-from-whole-number", f"{HALF}:predict", {"instances": [1]}, 200, {"predictions": [2.5]}),
    Case("float-lossy", f"{HALF}:predict", {"instances": [16777217]}, 400, "without loss of precision"),
    Case("ragged", f"{HALF}:predict", {"instances": [[1.0], [1.0, 2.0]]}, 400, "ragged"),
    Case("null", f"{HALF}:predict", {"instances": [None]}, 400, "must be a number, not null"),
    Case("string-for-number", f"{HALF}:predict", {"instances": ["1"]}, 400, "must be a number, not a string"),
    Case("both-formats", f"{HALF}:predict", {"instances": [1], "inputs": [1]}, 400, "exactly one of them"),
    Case("no-format", f"{HALF}:predict", {}, 400, "'instances' (rows) or 'inputs' (columns)"),
    Case("empty-instances", f"{HALF}:predict", {"instances": []}, 400, "at least one row"),
    Case("instances-no-list", f"{HALF}:predict", {"instances": 1}, 400, "must be a list"),
    Case("not-an-object", f"{HALF}:predict", [1], 400, "JSON object"),
    Case("not-json", f"{HALF}:predict", b"{", 400, "JSON Parse error"),
    Case("empty-body", f"{HALF}:predict", b"", 400, "JSON Parse error"),
    Case(
        "signature-unknown",
        f"{HALF}:predict",
        {"signature_name": "no", "instances": [1]},
        400,
        "not found in signature",
    ),
    Case("signature-not-text", f"{HALF}:predict", {"signature_name": 1, "instances": [1]}, 400, "must be a string"),
    Case("row-lacks-an-input", f"{PEOPLE}:predict", {"instances": [{"age": 1}]}, 400, "lacks the inputs ['job']"),
    Case("column-lacks-an-input", f"{PEOPLE}:predict", {"inputs": {"age": [1]}}, 400, "lacks the inputs ['job']"),
    Case("column-with-more", f"{PEOPLE}:predict", {"inputs": {**A_PERSON, "more": [1]}}, 400, "'inputs' has ['more']"),
    Case("shape", f"{PEOPLE}:predict", {"inputs": {"age": [[1]], "job": [["x"]]}}, 400, "has the shape [1, 1]"),
    Case("no-model", "/v1/models/no:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(no)"),
    Case("no-version", f"{HALF}/versions/9:predict", {"instances": [1]}, 404, "Specific(half, 9)"),
    Case("no-label", f"{HALF}/labels/x:predict", {"instances": [1]}, 404, "Unrecognized servable version label: x"),
    Case("malformed-path", "/v1/models/half:explain", {"instances": [1]}, 404, "Malformed request"),
    Case(
        "graph-refuses", f"{ODD}:predict", {"signature_name": "positive", "instances": [-1]}, 400, "x must be positive"
    ),
    Case(
        "classify",
        f"{EXAMPLES}:classify",
        {"examples": [{"x": 1.0}, {"x": [2.0]}]},
        200,
        {"results": [[["low", -3.5], ["high", 3.5]], [["low", -4.0], ["high", 4.0]]]},
    ),
    Case(
        "classify-scores-only",
        f"{EXAMPLES}:classify",
        {"signature_name": "scores_only", "examples": [{"x": 1.0}]},
        200,
        {"results": [[["", -3.5], ["", 3.5]]]},
    ),
    Case(
        "classify-classes-only",
        f"{EXAMPLES}:classify",
        {"signature_name": "classes_only", "examples": [{"x": 1.0}]},
        200,
        {"results": [[["low", 0.0], ["high", 0.0]]]},
    ),
    Case(
        "regress",
        f"{EXAMPLES}:regress",
        {"signature_name": REGRESS, "examples": [{"x": 1.0}, {"x": 2.0}]},
        200,
        {"results": [3.5, 4.0]},
    ),
    Case(
        "regress-flat",
        f"{EXAMPLES}:regress",
        {"signature_name": "flat", "examples": [{"x": 1.0}]},
        200,
        {"results": [3.5]},
    ),
    Case(
        "regress-wide",
        f"{EXAMPLES}:regress",
        {"signature_name": "wide", "examples": [{"x": 1.0}]},
        400,
        "[batch_size, 1]",
    ),
    Case(
        "context",
        f"{EXAMPLES}:regress",
        {"signature_name": REGRESS, "context": {"x2": 10.0}, "examples": [{"x": 1.0}, {"x": 2.0, "x2": 0.5}]},
        200,
        {"results": [13.5, 4.5]},
    ),
    Case(
        "regress-wrong-method",
        f"{EXAMPLES}:regress",
        {"examples": [{"x": 1.0}]},
        400,
        "method_name to be tensorflow/serving/regress",
    ),
    Case(
        "classify-on-predict",
        f"{HALF}:classify",
        {"examples": [{"x": 1.0}]},
        400,
        "method_name to be tensorflow/serving/classify",
    ),
    Case("examples-missing", f"{EXAMPLES}:classify", {}, 400, "key 'examples' is expected"),
    Case("examples-empty", f"{EXAMPLES}:classify", {"examples": []}, 400, "at least one example"),
    Case("example-no-object", f"{EXAMPLES}:classify", {"examples": [1]}, 400, "must be a JSON object"),
    Case(
        "feature-of-mixed-types",
        f"{EXAMPLES}:classify",
        {"examples": [{"x": [1.0, "a"]}]},
        400,
        "expecting type: float",
    ),
    Case("feature-null", f"{EXAMPLES}:classify", {"examples": [{"x": None}]}, 400, "unexpected JSON type"),
    Case(
        "predict-on-serialized", f"{EXAMPLES}:predict", {"signature_name": "predict", "instances": ["x"]}, 400, "parse"
    ),
    Case(
        "vertex-parameters",
        f"{HALF}:predict",
        {"instances": [1.0], "parameters": {"k": 1}},
        200,
        {"predictions": [2.5]},
    ),
    Case(
        "vertex-signature",
        f"{ODD}:predict",
        {"instances": [1], "parameters": {"signature_name": "log"}},
        200,
        {"predictions": [0.0]},
    ),
    Case("kserve-list", "/v1/models", None, 200, {"models": ["examples", "half", "odd", "people"]}),
    Case("kserve-ready", ODD, None, 200, {"name": "odd", "ready": True, **available(1)}),
    Case("kserve-no-model", "/v1/models/no", None, 404, "not found"),
    Case("kserve-predict", f"{HALF}:predict", {"instances": [[1.0], [2.0]]}, 200, {"predictions": [[2.5], [3.0]]}),
    Case("kserve-predict-inputs", f"{HALF}:predict", {"inputs": [[1.0], [2.0]]}, 200, {"outputs": [[2.5], [3.0]]}),
    Case("kserve-explain", f"{HALF}:explain", {"instances": [[1.0]]}, 404, "Malformed request"),
    Case("kserve-live", "/", None, 200, {"status": "alive"}),
    Case("kserve-v2-ready", "/v2/health/ready", None, 200, {"status": "ready"}),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("root")
    for name in ("odd", "half", "examples"):
        shutil.copytree(MODELS / name, root / name / "1")
    for number in (1, 2):
        shutil.copytree(MODELS / f"people-{number}", root / "people" / str(number))
    records = {number: VersionRecord(f"sha256:{number}", "2026-11-23T00:00:00+00:00", 1) for number in (1, 2)}
    write_state(root / "people", ModelState(records, {1: 100}, labels={"canary": 2}, next_version=3))
    with ServerProcess(root) as server:
        for name in ("examples", "half", "odd", "people"):
            server.wait_until_available(name)
        yield server


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_case(server: ServerProcess, case: Case) -> None:
    if case.request is None:
        found = server.get(case.path)
    elif isinstance(case.request, bytes):
        found = server.post_bytes(case.path, case.request)
    else:
        found = server.post(case.path, case.request)
    assert found.status == case.status, found
    if isinstance(case.answer, str):
        assert list(found.document) == ["error"]
        assert case.answer in found.document["error"]
    else:
        assert json.dumps(found.document, sort_keys=True) == json.dumps(case.answer, sort_keys=True)


def test_the_document_lists_these_cases_and_no_others() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert listed == [case.id for case in CASES]


def test_shares_of_the_traffic(server: ServerProcess, tmp_path: Path) -> None:
    for number in (1, 2):
        shutil.copytree(MODELS / f"people-{number}", tmp_path / "people" / str(number))
    records = {number: VersionRecord(f"sha256:{number}", "2026-11-23T00:00:00+00:00", 1) for number in (1, 2)}
    write_state(tmp_path / "people", ModelState(records, {1: 70, 2: 30}, next_version=3))
    with ServerProcess(tmp_path) as split:
        split.wait_until_available("people")
        answers = [
            split.post(f"{PEOPLE}:predict", {"inputs": A_PERSON}).document["outputs"]["probabilities"][0][1]
            for _ in range(300)
        ]
    second = sum(answer == 0.5 for answer in answers)
    assert set(answers) == {0.25, 0.5}
    assert 45 < second < 135  # 90 but for chance; outside once in ten thousand million runs
