"""Training on several machines: requests held to the published schemas, sent through the real clients."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.emulators import kserve
from tests.emulators.http_server import Answer, LoopbackServer, Request, json_answer
from tests.emulators.kubeflow import problems
from tests.emulators.vertex_pipelines import FakeVertexPipelines

from servegraph.deploy_version.discovery import load
from servegraph.errors import InputError
from servegraph_pipelines import resources
from servegraph_pipelines.cli import app
from servegraph_pipelines.engines.runs import RunOptions
from servegraph_pipelines.training_job import TrainingJob, custom_job, tf_job

# The fields of a TFJob, but for those of its pods: manifests/base/crds/kubeflow.org_tfjobs.yaml of
# github.com/kubeflow/training-operator at 374e88af2, the newest that has it.
RUN_POLICY = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "cleanPodPolicy": re.compile("All|Running|None"),
    "managedBy": str,
    "schedulingPolicy": {
        "minAvailable": int,
        "minResources": {"*": kserve.QUANTITY},
        "priorityClass": str,
        "queue": str,
        "scheduleTimeoutSeconds": int,
    },
    "suspend": bool,
    "ttlSecondsAfterFinished": int,
}
REPLICAS = {"replicas": int, "restartPolicy": re.compile("Always|OnFailure|Never|ExitCode"), "template": dict}
TF_JOB = {
    "apiVersion": re.compile(r"kubeflow\.org/v1"),
    "kind": re.compile("TFJob"),
    "metadata": kserve.METADATA,
    "spec": {
        "enableDynamicWorker": bool,
        "runPolicy": RUN_POLICY,
        "successPolicy": str,
        "tfReplicaSpecs": dict.fromkeys(("Chief", "Master", "Worker", "PS", "Evaluator"), REPLICAS),
    },
}
CREATE = "aiplatform.projects.locations.customJobs.create"


def test_a_custom_job_has_a_chief_and_a_pool_of_workers() -> None:
    gpu = resources.parse(["train.accelerator=NVIDIA_TESLA_T4:2"])["train"]
    body = custom_job(TrainingJob("wide", {"seed": 3}, "gs://b/out", 4, "n1-standard-16", gpu))
    assert load("aiplatform", "v1").problems(CREATE, {"parent": "projects/p/locations/r"}, body) == []
    chief, others = body["jobSpec"]["workerPoolSpecs"]
    assert (chief["replicaCount"], others["replicaCount"]) == ("1", "3")
    assert chief["machineSpec"] == {
        "machineType": "n1-standard-16",
        "acceleratorType": "NVIDIA_TESLA_T4",
        "acceleratorCount": 2,
    }
    given = json.loads(chief["containerSpec"]["args"][1])
    assert given["inputs"]["parameterValues"]["seed"] == 3
    assert given["outputs"]["artifacts"]["model"]["artifacts"][0]["uri"] == "gs://b/out/model"
    assert given["outputs"]["outputFile"] == "/gcs/b/out/executor_output.json"
    assert len(custom_job(TrainingJob("one", {}, "gs://b/out"))["jobSpec"]["workerPoolSpecs"]) == 1


def test_a_tf_job_has_the_fields_of_the_operators_types() -> None:
    wanted = resources.parse(["train.cpu=8", "train.memory=32Gi", "train.accelerator=nvidia.com/gpu:1"])["train"]
    body = tf_job(TrainingJob("wide", {}, "/mnt/output/wide", 3, resources=wanted, volume_claim="models"))
    assert {kind: row["replicas"] for kind, row in body["spec"]["tfReplicaSpecs"].items()} == {"Chief": 1, "Worker": 2}
    pod = body["spec"]["tfReplicaSpecs"]["Worker"]["template"]
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    assert kserve.problems(TF_JOB, body, "TFJob") == []
    wrong = {**body, "spec": {**body["spec"], "tfReplicaSpec": {}, "runPolicy": {"cleanPodPolicy": "Some"}}}
    assert len(kserve.problems(TF_JOB, wrong, "TFJob")) == 2
    from kubernetes.client import models

    assert problems(pod, "V1PodTemplateSpec", "template", models) == []


@pytest.mark.parametrize(
    ("make", "job", "code"),
    [
        (custom_job, {"output": "/out"}, "BAD_OUTPUT"),
        (custom_job, {"output": "gs://b/o", "resources": resources.StepResources(cpu="8")}, "BAD_RESOURCES"),
        (custom_job, {"output": "gs://b/o", "resources": resources.StepResources(accelerator="T5")}, "BAD_RESOURCES"),
        (tf_job, {"output": "gs://b/o"}, "BAD_OUTPUT"),
        (tf_job, {"output": "/mnt/output/x", "volume_claim": "v", "name": "Wide"}, "BAD_RUN_NAME"),
        (tf_job, {"output": "/mnt/output/x", "volume_claim": "v", "name": 60 * "w"}, "BAD_RUN_NAME"),
        (tf_job, {"output": "/mnt/output/x"}, "BAD_OUTPUT"),
        (custom_job, {"output": "gs://b/o", "workers": 0}, "BAD_WORKERS"),
        (custom_job, {"output": "gs://b/o", "machine_type": "foo"}, "BAD_MACHINE_TYPE"),
        (custom_job, {"output": "gs://b/o", "machine_type": "N1 standard 8"}, "BAD_MACHINE_TYPE"),
        (custom_job, {"output": "gs://b/o", "options": RunOptions(network="default")}, "BAD_RESOURCE_NAME"),
        (custom_job, {"output": "gs://b/o", "workers": 2, "parameters": {"trainer": "estimator"}}, "BAD_WORKERS"),
        (custom_job, {"output": "gs://b/o", "parameters": {"sed": 1}}, "UNKNOWN_PARAMETER"),
        (custom_job, {"output": "gs://b/o", "parameters": {"checkpoint_dir": "gs://b/c"}}, "BAD_CHECKPOINT_DIR"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, job: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as caught:
        make(TrainingJob(**{"name": "x", "parameters": {}, **job}))
    assert caught.value.code == code


@pytest.mark.parametrize("given", ["data=1.csv", "schema=/home/me/s.yaml", "trainer=own.py:build", "trainer={here}"])
def test_files_of_this_machine_are_refused(given: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").touch()
    words = ["train", "--engine", "vertex", "--name", "w", "--output", "gs://b/o", "--plan"]
    with pytest.raises(InputError) as caught:
        app.main([*words, "--param", given.format(here=f"{tmp_path}/own.py:build")], standalone_mode=False)
    assert caught.value.code == "NOT_FOR_ENGINE"
    app.main([*words, "--param", "data=gs://b/*.csv", "--param", "trainer=/app/own.py:build"], standalone_mode=False)


@pytest.mark.parametrize(
    ("machine_type", "note"),
    [
        ("n1-standard-8", ""),
        (
            "n1-standrad-8",
            "note: n1-standrad-8 is not in the catalogue, so nothing about it could be checked. Did you mean",
        ),
        ("n2-standard-8", "note: n2-standard-8 is not in the catalogue, so nothing about it could be checked.\n"),
    ],
)
def test_a_machine_that_the_catalogue_has_not_is_told(
    machine_type: str, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--engine", "vertex", "--name", "w", "--output", "gs://b/o", "--plan"]
    app.main([*words, "--machine-type", machine_type], standalone_mode=False)
    shown = capsys.readouterr()
    assert shown.err.startswith(note) and bool(shown.err) == bool(note)
    assert json.loads(shown.out)["plan"]


def test_it_is_sent_to_vertex(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeVertexPipelines() as fake:
        place = ["--project", "p", "--region", "r", "--api-url", fake.url, "--output", "gs://b/out"]
        app.main(["train", "--engine", "vertex", "--name", "wide", "--workers", "2", *place], standalone_mode=False)
        (made,) = fake.custom_jobs.values()
        assert made["displayName"] == "wide"
        assert made["name"] in capsys.readouterr().out


class FakeCluster(LoopbackServer):
    """A Kubernetes API server that takes TFJobs."""

    def __init__(self) -> None:
        super().__init__(self._create)
        self.made: list[dict[str, Any]] = []

    def _create(self, request: Request) -> Answer:
        assert request.path == "/apis/kubeflow.org/v1/namespaces/ml/tfjobs"
        assert request.query["fieldValidation"] == "Strict"
        self.made.append(request.json())
        return json_answer(request.json(), 201)


def test_it_is_sent_to_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeCluster() as fake:
        place = ["--namespace", "ml", "--api-url", fake.url, "--output", "/mnt/output/x", "--volume-claim", "models"]
        app.main(["train", "--engine", "kfp", "--name", "wide", *place], standalone_mode=False)
        assert fake.made[0]["kind"] == "TFJob"
        assert "ml/tfjobs/wide" in capsys.readouterr().out


@pytest.mark.slow
def test_a_worker_trains_from_the_arguments_it_is_given(tmp_path: Path) -> None:
    """The very command of a worker, with this machine's Python, on one machine."""
    parameters = {"hyperparameters": {"epochs": 1, "hidden_units": [4]}}
    body = tf_job(TrainingJob("one", parameters, str(tmp_path / "out"), volume_claim="models"))
    (container,) = body["spec"]["tfReplicaSpecs"]["Chief"]["template"]["spec"]["containers"]
    command = [re.sub(r"python3 -m", f"{sys.executable} -m", part) for part in container["command"]]
    done = subprocess.run([*command, *container["args"]], env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "out/model/model.keras").is_file()
    written = json.loads((tmp_path / "out/executor_output.json").read_text())
    assert "accuracy" in written["artifacts"]["metrics"]["artifacts"][0]["metadata"]
