"""`why`: what differs between two runs, on both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.kubeflow import FakeKubeflow
from tests.emulators.vertex_pipelines import FakeVertexPipelines

from servegraph import taken
from servegraph.errors import InputError
from servegraph_pipelines import flows
from servegraph_pipelines.cli import app
from servegraph_pipelines.engines.vertex import VertexEngine
from servegraph_pipelines.why import PastRun, why

PACKAGE = Path(flows.__file__).parent
FLOW = flows.read(PACKAGE / "train_and_deploy.yaml")
SUBMIT = ["submit", "--pipeline", str(PACKAGE / "train_and_deploy.yaml")]
SUBMIT += ["--param", "target=kserve", "--param", "namespace=ml", "--param", "staging=gs://b/models"]
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
    off = "digest-data: caching: off → off: it runs every time"
    assert lines("train", *runs) == ["train: content of data_digest: not read → not read", off]
    taken = {"train": {"data": "aa"}, "export-serving-graph": {"trained": "bb", "samples": "cc"}}
    taken["optimize"] = {"model": "dd", "samples": "cc"}
    runs = PastRun("a", FLOW, {"seed": 1}, taken), PastRun("b", FLOW, {}, taken)
    assert lines("optimize", *runs) == [off]


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
    assert caught.value.fix.startswith("Did you mean train? ")


def test_the_content_of_an_input_is_compared_where_the_engine_says_it() -> None:
    def took(digest: str) -> dict[str, Any]:
        artifact = {"name": "a/1", "metadata": {"ServingModel": {"size_bytes": 3.0, "digest": digest}}}
        execution = {"metadata": {"input:budget": "1MB", "input:model_digest": "zz", "input:samples_digest": "cc"}}
        detail = {"taskName": "optimize", "inputs": {"model": {"artifacts": [artifact]}}, "execution": execution}
        job = {"name": f"projects/p/locations/r/pipelineJobs/{digest}", "pipelineSpec": FLOW.document}
        return {**job, "jobDetail": {"taskDetails": [detail, {"taskName": "train"}]}}

    first, again, other = (VertexEngine._past(took(f"sha256:{text}")) for text in ("aa", "aa", "bb"))
    assert not any("model" in line for line in lines("optimize", first, again))
    assert "optimize: input model: model of export-serving-graph (aa) → model of export-serving-graph (bb)" in lines(
        "optimize", first, other
    )
    assert not any("samples" in line for line in lines("optimize", first, other) if line.startswith("optimize"))
    unknown = lines("optimize", PastRun("old", FLOW, {}), other)
    assert "optimize: content of model: not read → bb" in unknown
    assert "optimize: content of samples: not read → cc" in unknown


def test_other_data_is_found_where_the_engine_says_the_values_of_parameters() -> None:
    def trained(digest: str) -> dict[str, Any]:
        detail = {"taskName": "train", "execution": {"metadata": {"input:data_digest": digest}}}
        return {"name": "jobs/a", "pipelineSpec": FLOW.document, "jobDetail": {"taskDetails": [detail]}}

    found = lines("train", VertexEngine._past(trained("aa")), VertexEngine._past(trained("bb")))
    row = "content_digest of digest-data"
    assert f"train: input data_digest: {row} (aa) → {row} (bb)" in found


@pytest.fixture
def kubeflow() -> Iterator[tuple[FakeKubeflow, Any]]:
    """The fake with a function that runs the flow to its end, the steps printing these lines; it returns the id."""
    with FakeKubeflow() as fake:

        def run(name: str, prints: dict[str, str]) -> str:
            where = ["--engine", "kfp", "--host", fake.url, "--wait", "--poll-s", "0.01", "--cache", "as-compiled"]
            assert app.main([*SUBMIT, "--name", name, *where], standalone_mode=False) == 0
            run_id = next(row["run_id"] for row in fake.runs.values() if row["display_name"] == name)
            fake.prints |= {f"{run_id}/{step}": text for step, text in prints.items()}
            return str(run_id)

        yield fake, run


def test_kubeflow_compares_what_the_steps_say_in_their_logs(
    kubeflow: tuple[FakeKubeflow, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fake, run = kubeflow

    def why_of(run_id: str, step: str) -> list[str]:
        capsys.readouterr()
        app.main(["why", run_id, step, "--engine", "kfp", "--host", fake.url, "--json"], standalone_mode=False)
        rows = json.loads(capsys.readouterr().out)["reasons"]
        return [f"{row['step']}: {row['what']}: {row['before']} → {row['now']}" for row in rows]

    def said(**digests: str) -> str:
        return f"[KFP Executor] Looking for component\n{said_by(**digests)}\nand more\n"

    def said_by(**digests: str) -> str:
        capsys.readouterr()
        taken.say(**digests)
        return capsys.readouterr().out.strip()

    train, export = said(data="aa"), said(trained="bb", samples="cc")
    run("first", {"train": train, "export-serving-graph": export, "optimize": said(model="dd", samples="cc")})
    same = run("same", {"train": train, "export-serving-graph": export, "optimize": said(model="dd", samples="cc")})
    off = "digest-data: caching: off → off: it runs every time"
    assert why_of(same, "optimize") == [off]
    other = run("other", {"train": said(data="xx"), "export-serving-graph": export, "optimize": "no such line"})
    assert why_of(other, "optimize") == [
        "optimize: content of model: dd → not read",  # its log says nothing: that is no reason to call it the same
        "optimize: content of samples: cc → not read",
        "train: input data_digest: content_digest of digest-data (aa) → content_digest of digest-data (xx)",
        off,
    ]
    gone = run("gone", {"train": said(data="xx")})
    assert "export-serving-graph: content of trained: bb → not read" in why_of(gone, "export-serving-graph")


def test_a_run_that_somebody_else_started_does_not_tell_its_steps(kubeflow: tuple[FakeKubeflow, Any]) -> None:
    """A run of a stored pipeline refers to it only, one of KFP 1 has a manifest: neither is the run before."""
    fake, run = kubeflow
    first = run("first", {})
    their = {**fake.runs[first], "run_id": "theirs", "display_name": "theirs"}
    del their["pipeline_spec"]
    stored = {"pipeline_version_reference": {"pipeline_id": "a", "pipeline_version_id": "b"}}
    fake.runs["theirs"] = {**their, **stored}
    fake.runs["old"] = {**their, "run_id": "old", "pipeline_spec": {"workflow_manifest": "{}"}}
    where = ["--engine", "kfp", "--host", fake.url, "--json"]
    assert app.main(["why", run("second", {}), "train", *where], standalone_mode=False) == 0
    for asked in (["theirs"], ["old"], [first, "--against", "theirs"]):
        with pytest.raises(InputError) as caught:
            app.main(["why", asked[0], "train", *asked[1:], *where], standalone_mode=False)
        assert caught.value.code == "NO_SPECIFICATION"


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

    first = call(*SUBMIT, "--name", "first", "--param", "seed=1")["run"]
    with pytest.raises(InputError) as caught:
        call("why", first, "train")
    assert caught.value.code == "NO_RUN_BEFORE"
    with pytest.raises(InputError) as caught:
        call("why", first, "trian")  # what is mistyped is told before what is not there
    assert caught.value.code == "UNKNOWN_STEP"
    second = call(*SUBMIT, "--name", "second", "--param", "seed=2")["run"]
    found = call("why", second, "train")
    assert found["against"] == first
    assert {"step": "train", "what": "input seed", "before": "1.0", "now": "2.0"} in [
        {**row, "before": str(float(row["before"])), "now": str(float(row["now"]))}
        for row in found["reasons"]
        if row["what"] == "input seed"
    ]
    assert call("why", first, "train", "--against", second)["reasons"]
