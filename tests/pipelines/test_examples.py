"""The example pipelines of the docs, run as they are on models that were made elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from servegraph.deploy_version.targets import TARGETS, Place, open_target
from servegraph.errors import InputError
from servegraph_pipelines import flows
from servegraph_pipelines.bindings import tasks_of
from servegraph_pipelines.foresight import check_files

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "tests/real_models"


def run(tmp_path: Path, example: str, *params: str) -> dict[str, Any]:
    module = f"{example}:{example}"
    # The installed command, which has its own folder where `python -c` has the current one.
    servegraph = Path(sys.executable).with_name("servegraph")
    command = [str(servegraph), "run", "--pipeline", module, "--output-dir", str(tmp_path / "out"), "--json"]
    command += [text for param in params for text in ("--param", param)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "docs/examples")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.slow
def test_a_model_trained_elsewhere_is_shrunk_and_inspected(tmp_path):
    done = run(tmp_path, "shrink_a_model", f"model_uri={MODELS / 'keras_dense'}")
    assert [step["name"] for step in done["steps"]] == ["digest-data", "optimize", "inspect-graph"]
    assert done["optimized"]["after_bytes"] < done["optimized"]["before_bytes"]


def test_a_model_is_deployed_and_again_changes_nothing(tmp_path):
    params = [f"model_uri={MODELS / 'keras_dense'}", "model_name=dense"]
    assert run(tmp_path, "deploy_a_model", *params)["deployed"]["outcome"] == "created"
    assert run(tmp_path, "deploy_a_model", *params)["deployed"]["outcome"] == "unchanged"


def test_a_model_on_gs_is_not_imported_on_this_machine(monkeypatch):
    monkeypatch.chdir(ROOT / "docs/examples")
    example = flows.load("shrink_a_model:shrink_a_model")
    with pytest.raises(InputError) as caught:
        check_files(example, {"model_uri": "gs://bucket/model"})
    assert caught.value.code == "NOT_LOCAL"
    assert caught.value.message.startswith("Step importer: on this machine gs://bucket/model is read from /gcs/bucket/")
    check_files(example, {"model_uri": "/where/steps/look"})


def test_a_model_of_another_framework_goes_to_vertex_too(monkeypatch):
    monkeypatch.chdir(ROOT / "docs/examples")
    given = {"target": "vertex", "project": "p", "region": "r", "staging": "gs://b/m"}
    example = flows.load("serve_another_framework:serve_another_framework")
    deployed = next(task for task in tasks_of(example, given) if task.component == "deploy-version")
    assert {name: deployed.inputs[name] for name in given} == given


def test_a_deploy_has_all_that_a_target_needs(monkeypatch):
    monkeypatch.chdir(ROOT / "docs/examples")
    place = {"project": "p", "region": "r", "staging": "gs://b/m", "namespace": "ml", "location": "serving"}
    example = flows.load("deploy_a_model:deploy_a_model")
    deployed = next(task for task in tasks_of(example, place) if task.component == "deploy-version")
    given = {"root" if key == "location" else key: deployed.inputs[key] for key in place}
    for target in TARGETS:
        assert open_target(target, Place(**given, api_url="http://127.0.0.1:9"))


def test_a_model_of_another_framework_is_measured_placed_and_deployed(tmp_path):
    done = run(tmp_path, "serve_another_framework", f"model_uri={MODELS / 'jax2tf_mlp'}", "model_name=mlp")
    assert done["choice"]["machine_type"].startswith("n1-")
    assert done["deployed"]["outcome"] == "created"
    assert (tmp_path / "out/serving/mlp/1/saved_model.pb").is_file()
