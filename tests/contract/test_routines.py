"""Models with a custom prediction routine on the targets that are services: trusted, uploaded along, and asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.ai_platform import FakeAiPlatform
from tests.emulators.gcs import FakeGcs
from tests.emulators.remote_places import FAKES, Emulated
from tests.tiny_models import write_tiny_model

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.plan import DeployRequest, ServiceOptions
from servegraph.deploy_version.targets import Target
from servegraph.errors import DeployRefused
from servegraph.routine.manifest import FOLDER, GOLDEN, MANIFEST, Routine
from servegraph.serve.state import ServingConfig
from servegraph_pipelines.cli import app

ROUTINE = Routine("fahrenheit:F", "predictor", False, "f-1.0-py3-none-any.whl", "f-1.0.tar.gz")
CELSIUS = [{"request": {"instances": [50.0, 32.0]}, "response": {"predictions": [{"c": 10.0}, {"c": 0.0}]}}]


@dataclass
class There:
    """A service that answers as the routine does, and its storage."""

    kind: str
    service: Any
    storage: FakeGcs
    target: Target
    models: Path

    def model(self, name: str = "1", routine: Routine = ROUTINE) -> str:
        directory = write_tiny_model(self.models / name, name)
        (directory / FOLDER / "wheels").mkdir(parents=True, exist_ok=True)
        (directory / MANIFEST).write_text(routine.to_json())
        (directory / FOLDER / routine.wheel).write_text("wheel")
        (directory / FOLDER / routine.sdist).write_text("sdist")
        (directory / GOLDEN).write_text("".join(json.dumps(line) + "\n" for line in CELSIUS))
        return str(directory)

    def request(self, **changes: Any) -> DeployRequest:
        machine = "mls1-c1-m2" if self.kind == "ai-platform" else "n1-standard-2"
        return DeployRequest(self.model(), "degrees", ServingConfig(machine), trust_code=True, **changes)


@pytest.fixture(params=["vertex", "ai-platform"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[There]:
    with ExitStack() as stack:
        yield opened(request.param, tmp_path, stack)


def opened(kind: str, tmp_path: Path, stack: ExitStack) -> There:
    service, storage = stack.enter_context(FAKES[kind]()), stack.enter_context(FakeGcs())
    storage.make_bucket("bucket")
    service.answer = lambda uri, instances: [{"c": (degrees - 32) / 1.8} for degrees in instances]
    place = Emulated(kind, service.url, storage.url, region=None if kind == "ai-platform" else "us-central1")
    return There(kind, service, storage, place.open(stack), tmp_path)


def refusal(there: There, request: DeployRequest) -> DeployRefused:
    """Return why a deploy is refused, which changes nothing."""
    found = plan_deploy(request, there.target).refusal()
    with pytest.raises(DeployRefused) as refused:
        deploy(request, there.target)
    assert found is not None and found.code == refused.value.code
    assert there.storage.names("bucket") == []
    sent = [call.request for call in there.service.calls if call.request.method != "GET"]
    assert not [request for request in sent if "dryRun" not in request.query]
    return found


def test_it_is_deployed_with_its_package_and_asked_as_a_whole(there: There) -> None:
    done = deploy(there.request(), there.target)
    assert (done.outcome, dict(done.traffic), done.warnings) == ("created", {"1": 100}, ())
    files = {name.split("/", 3)[3] for name in there.storage.names("bucket")}
    assert {f"{FOLDER}/{ROUTINE.wheel}", f"{FOLDER}/{ROUTINE.sdist}", "saved_model.pb"} <= files
    sent = [call.request.json() for call in there.service.calls if call.request.method == "POST"]
    if there.kind == "vertex":
        (model,) = [body["model"] for body in sent if "model" in body]
        assert {"name": "SERVEGRAPH_TRUST_CODE", "value": "1"} in model["containerSpec"]["env"]
        asked = [body for body in sent if "instances" in body]
    else:
        (version,) = [body for body in sent if "deploymentUri" in body]
        assert version["predictionClass"] == "servegraph_routine.Routine" and "framework" not in version
        assert version["packageUris"] == [f"{version['deploymentUri']}/{FOLDER}/{ROUTINE.sdist}"]
        assert version["packageUris"][0].removeprefix("gs://bucket/") in there.storage.names("bucket")
        asked = [body for body in sent if "instances" in body]
    assert asked and all(body["instances"] == [50.0, 32.0] for body in asked)
    assert deploy(there.request(), there.target).outcome == "unchanged"


def test_another_answer_than_recorded_is_quoted_and_taken_back(there: There) -> None:
    there.service.answer = lambda uri, instances: [{"c": degrees} for degrees in instances]
    words = r"\(routine\) of degrees, .* output 'predictions'\[0\]\['c'\]: expected 10.0, got 50.0"
    with pytest.raises(DeployRefused, match=words) as refused:
        deploy(there.request(), there.target)
    assert refused.value.code == "PROBE_FAILED"
    assert there.storage.names("bucket") == []


def test_nothing_is_sent_without_trust(there: There) -> None:
    assert refusal(there, replace(there.request(), trust_code=False)).code == "CODE_NOT_TRUSTED"


def test_a_routine_in_the_place_of_the_graph_has_to_be_allowed(there: There) -> None:
    there.service.answer = lambda uri, instances: [{"c": (x - 32) / 1.8} for x in instances]
    request = there.request()
    plain = replace(request, model_uri=str(write_tiny_model(there.models / "plain", "plain")), trust_code=False)
    deploy(plain, there.target)
    with pytest.raises(DeployRefused, match="went to the graph itself, and now to the routine fahrenheit:F") as refused:
        deploy(request, there.target)
    assert refused.value.code == "SIGNATURE_CHANGED"
    assert deploy(replace(request, allow_signature_change=True), there.target).outcome == "updated"
    other = replace(request, model_uri=there.model("other"))
    assert deploy(other, there.target).outcome == "updated"  # what its clients send is for the golden requests to say


def test_what_vertex_cannot_run(tmp_path: Path) -> None:
    with ExitStack() as stack:
        there = opened("vertex", tmp_path, stack)
        prebuilt = ServiceOptions(image="us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest")
        assert refusal(there, replace(there.request(), service=prebuilt)).code == "ROUTINE_NEEDS_OUR_IMAGE"
        for number, tags in enumerate(("cp312-cp312-manylinux_2_28_x86_64", "cp311-cp311-macosx_11_0_arm64")):
            wheels = (f"fast-1.0-{tags}.whl",)
            model = there.model(f"wheels-{number}", replace(ROUTINE, wheels=wheels))
            assert refusal(there, replace(there.request(), model_uri=model)).code == "WHEEL_FOR_ANOTHER_PYTHON"
        wheels = ("fast-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "any-1.0-py3-none-any.whl")
        fine = there.model("fine", replace(ROUTINE, wheels=wheels))
        assert plan_deploy(replace(there.request(), model_uri=fine), there.target).refusal() is None


def test_what_ai_platform_cannot_run(tmp_path: Path) -> None:
    with ExitStack() as stack:
        there = opened("ai-platform", tmp_path, stack)
        derived = there.model("derived", replace(ROUTINE, needs_servegraph=True))
        assert refusal(there, replace(there.request(), model_uri=derived)).code == "ROUTINE_NEEDS_SERVEGRAPH"
        legacy = there.model("legacy", replace(ROUTINE, interface="from_path"))
        plan = plan_deploy(replace(there.request(), model_uri=legacy), there.target)
        (version,) = [step.body for step in plan.steps if step.method == "models.versions.create"]
        assert version is not None and version["predictionClass"] == "fahrenheit.F"
        with (Path(legacy) / "large.bin").open("wb") as file:
            file.truncate(500_000_001)
        assert refusal(there, replace(there.request(), model_uri=legacy)).code == "MODEL_TOO_LARGE"


def test_nothing_is_made_of_a_graph_that_a_routine_answers_for(
    there: There, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["explain", there.model(), "--platform", there.kind, "--json"], standalone_mode=False) == 1
    shown = json.loads(capsys.readouterr().out)
    assert "what the routine takes is in no file" in shown["reason"]
    assert not {"explanationSpec", "explanationConfig"} & shown.keys()


def test_ai_platform_takes_routines_on_mls1_only(tmp_path: Path) -> None:
    with ExitStack() as stack:
        service, storage = stack.enter_context(FakeAiPlatform()), stack.enter_context(FakeGcs())
        storage.make_bucket("bucket")
        target = Emulated("ai-platform", service.url, storage.url).open(stack)  # at a region's endpoint
        there = There("ai-platform", service, storage, target, tmp_path)
        request = replace(there.request(), config=ServingConfig("n1-standard-2"))
        assert refusal(there, request).code == "ROUTINE_NEEDS_MLS1"


def test_kserve_has_no_place_for_one(tmp_path: Path) -> None:
    with ExitStack() as stack:
        there = opened("kserve", tmp_path, stack)
        assert refusal(there, replace(there.request(), config=ServingConfig("container"))).code == "NOT_FOR_THIS_TARGET"
