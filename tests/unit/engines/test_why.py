"""`why`: what differs between two runs, on both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.kubeflow import FakeKubeflow
from tests.emulators.vertex_pipelines import FakeVertexPipelines

from servegraph.errors import InputError
from servegraph_pipelines import flows
from servegraph_pipelines.cli import app
from servegraph_pipelines.engines.vertex import VertexEngine
from servegraph_pipelines.why import PastRun, why

PACKAGE = Path(flows.__file__).parent
FLOW = flows.read(PACKAGE / "train_and_deploy.yaml")
RETRAIN = flows.read(PACKAGE / "retrain.yaml")
SAME = "sha256:" + 64 * "a"


def lines(step: str, before: PastRun, now: PastRun) -> list[str]:
    return [str(reason) for reason in why(step, before, now)]


def test_a_parameter_of_a_step_far_before_is_found() -> None:
    before, now = PastRun("a", FLOW, {"seed": 1.0}), PastRun("b", FLOW, {"seed": 2, "budget": "1MB"})
    assert "train: input seed: 1.0 → 2" in lines("inspect-graph", before, now)
    assert "optimize: input budget: '' → '1MB'" in lines("optimize", before, now)
    assert not any("budget" in line for line in lines("export-serving-graph", before, now))


def test_what_is_the_same_is_cached() -> None:
    runs = PastRun("a", FLOW, {"seed": 1}), PastRun("b", FLOW, {})
    assert lines("train", *runs) == ["train: caching: off → off: it runs every time"]
    assert lines("optimize", *runs) == lines("train", *runs)  # which it depends on


def test_an_image_and_code_that_changed() -> None:
    images = {image: f"{image}@{SAME}" for image in FLOW.images().values()}
    found = lines("inspect-graph", PastRun("a", FLOW, {}), PastRun("b", FLOW.with_images(images), {}))
    assert any(line.startswith("inspect-graph: image: ") for line in found)
    assert any(line.startswith("train: image: ") for line in found)


def test_steps_within_a_condition() -> None:
    before = PastRun("a", RETRAIN, {"history": "h", "min_metric": "0.8"})
    now = PastRun("b", RETRAIN, {"history": "h", "min_metric": "0.9", "model_name": "fraud"})
    found = lines("deploy-version", before, now)
    assert "deploy-version: input name: 'census' → 'fraud'" in found
    assert "evaluate: input min_metric: '0.8' → '0.9'" in lines("evaluate", before, now)
    with pytest.raises(InputError) as caught:
        why("trian", before, now)
    assert caught.value.code == "UNKNOWN_STEP"


def test_the_content_of_an_input_is_compared_where_the_engine_says_it() -> None:
    def took(digest: str) -> dict[str, Any]:
        artifact = {"name": "a/1", "metadata": {"ServingModel": {"size_bytes": 3.0, "digest": digest}}}
        detail = {"taskName": "optimize", "inputs": {"model": {"artifacts": [artifact]}}}
        job = {"name": f"projects/p/locations/r/pipelineJobs/{digest}", "pipelineSpec": FLOW.document}
        return {**job, "jobDetail": {"taskDetails": [detail, {"taskName": "train"}]}}

    first, again, other = (VertexEngine._past(took(f"sha256:{text}")) for text in ("aa", "aa", "bb"))
    assert not any("model" in line for line in lines("optimize", first, again))
    assert "optimize: input model: model of export-serving-graph (aa) → model of export-serving-graph (bb)" in lines(
        "optimize", first, other
    )
    assert not any("model" in line for line in lines("optimize", PastRun("old", FLOW, {}), other))  # it is not known


@pytest.fixture(params=["vertex", "kfp"])
def where(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    if request.param == "vertex":
        with FakeVertexPipelines() as fake:
            place = ["--project", "p", "--region", "r", "--pipeline-root", "gs://b/root", "--api-url", fake.url]
            yield ["--engine", "vertex", *place]
    else:
        with FakeKubeflow() as kubeflow:
            yield ["--engine", "kfp", "--host", kubeflow.url]


def test_the_run_before_is_found(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str) -> Any:
        capsys.readouterr()
        app.main([*arguments, *where, "--json"], standalone_mode=False)
        return json.loads(capsys.readouterr().out)

    flow = ["submit", "--pipeline", str(PACKAGE / "train_and_deploy.yaml")]
    first = call(*flow, "--name", "first", "--param", "seed=1")["run"]
    with pytest.raises(InputError) as caught:
        call("why", first, "train")
    assert caught.value.code == "NO_RUN_BEFORE"
    second = call(*flow, "--name", "second", "--param", "seed=2")["run"]
    found = call("why", second, "train")
    assert found["against"] == first
    assert {"step": "train", "what": "input seed", "before": "1.0", "now": "2.0"} in [
        {**row, "before": str(float(row["before"])), "now": str(float(row["now"]))}
        for row in found["reasons"]
        if row["what"] == "input seed"
    ]
    assert call("why", first, "train", "--against", second)["reasons"]
