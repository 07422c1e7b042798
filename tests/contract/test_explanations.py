"""Explanations at a deploy: made from the signature and taken by the service, or refused before anything is sent."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.gcs import FakeGcs
from tests.emulators.remote_places import FAKES, Emulated
from tests.tiny_models import write_tiny_model

from servegraph.deploy_version.deploy import deploy, examine, plan_deploy
from servegraph.deploy_version.discovery import load
from servegraph.deploy_version.explaining import check_explanation
from servegraph.deploy_version.plan import DeployRequest, ServiceOptions
from servegraph.errors import DeployRefused, InputError
from servegraph.explanations.metadata import METADATA_FILE, ai_platform_metadata, vertex_spec
from servegraph.explanations.rules import explainable
from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.state import ServingConfig

TODAY = date(2026, 11, 25)
PREBUILT = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"


def tensor(dtype: str, *shape: int | None) -> TensorInfo:
    return TensorInfo(("graph/t:0",), dtype, shape, "dense")


MIXED = Signature(
    "tensorflow/serving/predict",
    {"age": tensor("float32", None), "word": tensor("string", None, 1), "free": tensor("float32", None, None)},
    {"score": tensor("float32", None), "label": tensor("string", None)},
)
IMAGE = Signature(
    "tensorflow/serving/predict", {"x": tensor("float32", None, 2, 2, 1)}, {"y": tensor("float32", None, 3)}
)


@pytest.mark.parametrize(
    ("signature", "image", "methods"),
    [
        (MIXED, None, ("sampled-shapley",)),
        (MIXED, PREBUILT, ("sampled-shapley",)),  # no gradient by a word
        (IMAGE, None, ("sampled-shapley",)),
        (IMAGE, PREBUILT, ("sampled-shapley", "integrated-gradients", "xrai")),
    ],
)
def test_methods(signature, image, methods):
    answer = explainable("vertex", signature, "2.15.0", TODAY, image)
    assert (answer.possible, answer.methods, answer.until) == (True, methods, date(2027, 3, 16))


def test_there_is_no_baseline_of_a_size_that_no_request_has():
    for row in ((2**40,), (2**40, 0), (1001, 1000)):
        taken = Signature("", {"x": tensor("float32", None, *row)}, {"y": tensor("float32", None)})
        spec = vertex_spec(taken, "sampled-shapley", None, prebuilt=False, is_tf1=False)
        assert spec["metadata"]["inputs"] == {"x": {}}


def test_the_spec_is_of_the_published_schema():
    ours = vertex_spec(MIXED, "sampled-shapley", None, prebuilt=False, is_tf1=False)
    assert ours["metadata"] == {
        "inputs": {"age": {"inputBaselines": [0.0]}, "free": {}, "word": {"inputBaselines": [[""]]}},
        "outputs": {"score": {}},
    }
    theirs = vertex_spec(IMAGE, "integrated-gradients", None, prebuilt=True, is_tf1=False)
    assert theirs["metadata"]["inputs"]["x"] == {"inputTensorName": "x", "inputBaselines": [[[[0.0], [0.0]]] * 2]}
    assert theirs["metadata"]["outputs"] == {"y": {"outputTensorName": "y"}}
    older = vertex_spec(MIXED, "sampled-shapley", "score", prebuilt=True, is_tf1=True)
    assert older["metadata"]["outputs"] == {"score": {"outputTensorName": "graph/t:0"}}
    for spec in (ours, theirs, older):
        assert load("aiplatform", "v1").value_problems("GoogleCloudAiplatformV1ExplanationSpec", spec) == []
    wrong = {**ours, "metadata": {**ours["metadata"], "input": {}}}
    assert load("aiplatform", "v1").value_problems("GoogleCloudAiplatformV1ExplanationSpec", wrong)
    assert ai_platform_metadata(MIXED, None, is_tf1=True)["inputs"]["age"] == {
        "input_tensor_name": "graph/t:0",
        "input_baselines": [0.0],
    }


def test_of_several_outputs_one_is_named():
    several = MIXED._replace(outputs={"a": tensor("float32", None), "b": tensor("float32", None)})
    for wanted in (None, "c"):
        with pytest.raises(InputError) as refused:
            vertex_spec(several, "sampled-shapley", wanted, prebuilt=False, is_tf1=False)
        assert refused.value.code == "WHICH_OUTPUT"
        assert refused.value.fix == "Name one of a, b: with --output of explain, --explain-output of deploy."
    assert "b" in vertex_spec(several, "sampled-shapley", "b", prebuilt=False, is_tf1=False)["metadata"]["outputs"]


def test_the_metadata_of_a_tf2_model_are_what_the_sdk_writes():
    builders = pytest.importorskip("google.cloud.aiplatform.explain.metadata.tf.v2.saved_model_metadata_builder")
    model = Path(__file__).parents[1] / "real_models/keras_dense"
    theirs = builders.SavedModelMetadataBuilder(str(model)).get_metadata()
    signature = examine(DeployRequest(str(model), "m")).signatures["serving_default"]
    ours = vertex_spec(signature, "sampled-shapley", None, prebuilt=True, is_tf1=False)["metadata"]
    assert {k: v["inputTensorName"] for k, v in ours["inputs"].items()} == {
        k: v["inputTensorName"] for k, v in theirs["inputs"].items()
    }
    assert ours["outputs"] == theirs["outputs"]


@pytest.fixture
def opened(tmp_path: Path):
    with ExitStack() as stack:

        def opening(kind: str, explain: str | None = "sampled-shapley", machine: str = "n1-standard-2", **more: Any):
            service, storage = stack.enter_context(FAKES[kind]()), stack.enter_context(FakeGcs())
            storage.make_bucket("bucket")
            target = Emulated(kind, service.url, storage.url).open(stack)
            options = ServiceOptions(explain=explain, **more)
            model = str(write_tiny_model(tmp_path / "model"))
            request = DeployRequest(model, "m", ServingConfig(machine), service=options)
            return target, service, storage, request

        yield opening


def test_vertex_is_told_and_the_version_is_another_one(opened):
    target, service, _, request = opened("vertex")
    assert deploy(request, target).outcome == "created"
    (body,) = [call.request.json() for call in service.calls if call.request.path.endswith("/models:upload")]
    assert body["model"]["explanationSpec"] == {
        "parameters": {"sampledShapleyAttribution": {"pathCount": 10}},
        "metadata": {"inputs": {"x": {"inputBaselines": [0.0]}}, "outputs": {"y": {}}},
    }
    assert deploy(request, target).outcome == "unchanged"
    assert deploy(replace(request, service=ServiceOptions()), target).outcome == "updated"


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("vertex", {"explain": "integrated-gradients"}, "sampled-shapley would be"),
        ("vertex", {"explain": "xrai", "image": PREBUILT}, "sampled-shapley and integrated-gradients would be"),
        ("vertex", {"network": "projects/1/global/networks/n"}, "shared public endpoints"),
        (
            "vertex",
            {"explain": None, "explanation": json.dumps({"parameters": {"xraiAttribution": {"stepCount": 101}}})},
            "from 1 to 100",
        ),
        ("ai-platform", {}, "1.15 and 2.1 to 2.11"),
        ("kserve", {"machine": "container"}, "no use for explain"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(opened, kind, options, words):
    target, service, storage, request = opened(kind, **options)
    found = plan_deploy(request, target).refusal()
    assert found is not None and words in found.message
    with pytest.raises(DeployRefused, match=words):
        deploy(request, target)
    assert storage.names("bucket") == []
    sent = [call.request for call in service.calls if call.request.method != "GET"]
    assert not [request for request in sent if "dryRun" not in request.query]


def test_after_its_end_nothing_is_explained(tmp_path):
    facts = examine(DeployRequest(str(write_tiny_model(tmp_path / "model")), "m"))
    options = ServiceOptions(explain="sampled-shapley")
    check_explanation("vertex", options, facts, date(2027, 3, 15))
    with pytest.raises(DeployRefused, match="ended on 2027-03-16"):
        check_explanation("vertex", options, facts, date(2027, 3, 16))
    # AI Platform in its time: the metadata have to lie beside the graph.
    then, old = date(2024, 1, 1), replace(facts, tensorflow_version="2.11.0")
    with pytest.raises(DeployRefused, match=METADATA_FILE):
        check_explanation("ai-platform", options, old, then)
    (tmp_path / "model" / METADATA_FILE).write_text("{}")
    check_explanation("ai-platform", options, old, then)


def test_a_method_that_is_none():
    for options in ({"explain": "guess"}, {"explain": "xrai", "explanation": "{}"}):
        with pytest.raises(InputError) as refused:
            ServiceOptions(**options)
        assert refused.value.code == "BAD_EXPLANATION"
