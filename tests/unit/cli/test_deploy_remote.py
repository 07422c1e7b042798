"""`deploy` to a service as a user runs it, against emulators: the plan, the deploy, what is refused before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.gcs import FakeGcs
from tests.emulators.vertex import FakeVertex
from tests.tiny_models import write_tiny_model

GOLDEN = [{"signature_name": "serving_default", "inputs": {"x": [1.0]}, "outputs": {"y": [2.0]}}]


@dataclass
class Cloud:
    service: FakeVertex
    storage: FakeGcs

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        place = ["--target", "vertex", "--name", "census", "--project", "p", "--region", "us-central1"]
        place += ["--staging", "gs://bucket/models", "--api-url", self.service.url]
        script = "from servegraph_pipelines.cli import main; main()"
        command = [sys.executable, "-c", script, *map(str, arguments), *place]
        environment = {**os.environ, "STORAGE_EMULATOR_HOST": self.storage.url}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    def json(self, *arguments: object, code: int = 0) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with ExitStack() as stack:
        cloud = Cloud(stack.enter_context(FakeVertex()), stack.enter_context(FakeGcs()))
        cloud.storage.make_bucket("bucket")
        yield cloud


def test_planned_then_deployed(cloud: Cloud, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "1", golden=GOLDEN)
    options = ("--machine-type", "n1-standard-4", "--service-label", "team=fraud", "--max-replicas", "3")
    plan = cloud.json("deploy", model, "--plan", *options)
    assert (plan["outcome"], plan["version"], plan["price_per_hour"]) == ("created", "1", 0.219)
    assert plan["upload_bytes"] == sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    assert (plan["traffic_before"], plan["traffic_after"]) == ({}, {"1": 100})
    bodies = {step["method"]: step["body"] for step in plan["steps"] if step["body"]}
    assert bodies["models.upload"]["model"]["labels"]["team"] == "fraud"
    resources = bodies["endpoints.deployModel"]["deployedModel"]["dedicatedResources"]
    assert resources == {"machineSpec": {"machineType": "n1-standard-4"}, "minReplicaCount": 1, "maxReplicaCount": 3}
    assert bodies["endpoints.patch"]["labels"]["team"] == "fraud"
    assert (cloud.service.models, cloud.storage.names("bucket")) == ({}, [])
    done = cloud.run("deploy", model, *options)
    assert (done.returncode, "census: created, version 1 is live" in done.stdout) == (0, True), done.stderr
    assert "projects/p/locations/us-central1/models/census@1" in done.stdout
    assert "uploaded" in done.stderr and "probe: 1 golden requests" in done.stderr
    sent = [json.loads(call.request.body) for call in cloud.service.calls if call.request.path.endswith(":deployModel")]
    assert sent[-1]["deployedModel"] == bodies["endpoints.deployModel"]["deployedModel"]


def test_what_is_refused_before_anything_is_sent(cloud: Cloud, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "1")
    ended = ("--machine-type", "n1-standard-4", "--accelerator-type", "NVIDIA_TESLA_P100", "--accelerator-count", "1")
    assert cloud.json("deploy", model, *ended, code=1)["error"]["code"] == "ACCELERATOR_ENDED"
    assert cloud.json("deploy", model, "--min-replicas", "0", code=1)["error"]["code"] == "BAD_REPLICAS"
    for given, said in ((["-1"], "at least -1"), (["3", "--max-replicas", "2"], "at least 3 and at most 2")):
        replicas = cloud.json("deploy", model, "--min-replicas", *given, code=2)["error"]
        assert replicas["message"] == f"There cannot be {said} replicas."
    assert cloud.json("deploy", model, "--network", "default", code=2)["error"]["code"] == "BAD_RESOURCE_NAME"
    steps = cloud.json("deploy", model, "--traffic-steps", "50,10", code=2)
    assert steps["error"]["code"] == "BAD_TRAFFIC_STEPS"
    choice = tmp_path / "choice.json"
    choice.write_text('{"platform": "kserve", "machine_type": "container"}')
    assert cloud.json("deploy", model, "--choice", choice, code=2)["error"]["code"] == "OTHER_PLATFORM"
    choice.write_text('{"platform": "vertex"}')
    lacking = cloud.json("deploy", model, "--choice", choice, code=2)["error"]
    assert lacking["code"] == "BAD_CHOICE"
    assert lacking["message"] == f"{choice} is not the record of a machine choice: it has no 'machine_type'."
    assert not [call for call in cloud.service.calls if call.request.method != "GET"]
    assert [name for name in cloud.storage.names("bucket") if not name.endswith("lock.json")] == []
