"""What every target promises, on this machine and on emulators. No model is loaded: what serves is a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.target_suite import *  # noqa: F403
from tests.contract.target_suite import GOLDEN, There, Write
from tests.emulators.gcs import FakeGcs
from tests.emulators.http_server import Tampering
from tests.emulators.remote_places import FAKES, Emulated
from tests.emulators.vertex import FakeVertex
from tests.tiny_models import SCHEMA_VERSION, saved_model, write_tiny_model

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.golden import difference
from servegraph.deploy_version.plan import DeployRequest, ServiceOptions, Tolerance
from servegraph.deploy_version.targets import TARGETS, Place, open_target
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.deploy_version.targets.remote_target import RemoteTarget
from servegraph.errors import DeployRefused, InputError
from servegraph.routine.manifest import Routine
from servegraph.savedmodel.golden_file import GoldenRequest
from servegraph.savedmodel.layout import content_digest
from servegraph.serve.signatures import Signatures
from servegraph.serve.state import ServingConfig
from servegraph.storage import open_dir

MACHINES = ServingConfig("n1-standard-2"), ServingConfig("n1-standard-4", "NVIDIA_TESLA_V100", 1)
CONTAINERS = ServingConfig("container"), ServingConfig("container", "nvidia.com/gpu", 1)


def doubling_probe(
    root: Path,
    name: str,
    signatures: Signatures,
    golden: tuple[GoldenRequest, ...],
    tolerance: Tolerance,
    routine: Routine | None,
) -> None:
    """Stand in for the server that the local target starts."""
    (version,) = (root / name).iterdir()
    assert (version / "saved_model.pb").is_file()
    for request in golden:
        found = difference(request, {"y": [2 * x for x in request.inputs["x"]]}, tolerance)
        if found:
            raise DeployRefused(found, code="PROBE_FAILED")


def on_local(tmp_path: Path, stack: ExitStack) -> There:
    return There(lambda: LocalTarget(tmp_path / "root", probe=doubling_probe, lock_timeout_s=0.3), MACHINES)


def on(kind: str) -> Callable[[Path, ExitStack], There]:
    def make(tmp_path: Path, stack: ExitStack) -> There:
        service, storage = stack.enter_context(FAKES[kind]()), stack.enter_context(FakeGcs())
        storage.make_bucket("bucket")
        service.answer = doubled
        place = Emulated(kind, service.url, storage.url)
        configs = CONTAINERS if kind == "kserve" else MACHINES
        return There(lambda: place.open(stack), configs, shares=kind != "ai-platform")

    return make


def doubled(uri: str, instances: list[Any]) -> list[Any]:
    """Stand in for the containers of a service."""
    return [2 * instance["x"] for instance in instances]


@pytest.fixture(params=[on_local, *map(on, FAKES)], ids=["local", *FAKES])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[There]:
    with ExitStack() as stack:
        yield request.param(tmp_path, stack)


@pytest.fixture
def model(tmp_path: Path) -> Write:
    made: list[Path] = []

    def write(content: str = "1", **parts: Any) -> str:
        made.append(write_tiny_model(tmp_path / "models" / str(len(made)), content, **parts))
        return str(made[-1])

    return write


@pytest.fixture
def vertex() -> Iterator[tuple[FakeVertex, RemoteTarget]]:
    with ExitStack() as stack:
        service, storage = stack.enter_context(FakeVertex()), stack.enter_context(FakeGcs())
        storage.make_bucket("bucket")
        yield service, Emulated("vertex", service.url, storage.url).open(stack)


def test_requests_that_make_no_sense() -> None:
    for wrong in (
        {"keep_versions": 0},
        {"traffic_percent": 101},
        {"config": ServingConfig(accelerator_type="NVIDIA_L4")},
        {"config": ServingConfig(accelerator_count=1)},
    ):
        with pytest.raises(InputError):
            DeployRequest("model", "census", **wrong)
    for explanation in ("{no", "[]", "1"):
        with pytest.raises(InputError, match="not a JSON object"):
            ServiceOptions(explanation=explanation)


def test_every_target_of_the_table_opens() -> None:
    somewhere = Place("root", "project", "us-central1", "gs://bucket/models", "default", None, "http://127.0.0.1:1")
    for name in TARGETS:
        assert open_target(name, somewhere)
    with pytest.raises(InputError) as caught:
        open_target("moon", somewhere)
    assert caught.value.code == "UNKNOWN_TARGET"
    with pytest.raises(InputError, match=r"needs the directory to deploy to"):
        open_target("local", Place())
    with pytest.raises(InputError, match=r"needs a project"):
        open_target("vertex", Place())


def test_of_two_metagraphs_the_version_gets_that_of_its_machine(place: There, tmp_path: Path) -> None:
    one, both = (write_tiny_model(tmp_path / name, "1") for name in ("one", "both"))
    second = saved_model(tags=["serve", "gpu"])
    (both / "saved_model.pb").write_bytes(saved_model() + second.removeprefix(SCHEMA_VERSION))
    plain, on_gpu = (DeployRequest(str(both), "census", config) for config in place.configs)
    plan = plan_deploy(plain, place.open())
    assert (plan.model.tags, plan.model.left_out) == (("serve",), (("serve", "gpu"),))
    assert plan.model.digest == content_digest(open_dir(one))
    assert deploy(plain, place.open()).outcome == "created"
    assert plan_deploy(on_gpu, place.open()).model.tags == ("serve", "gpu")
    assert deploy(on_gpu, place.open()).version == "2"
    assert deploy(on_gpu, place.open()).outcome == "unchanged"


def test_an_image_that_may_leave_the_gpu_idle_is_said(vertex: tuple[FakeVertex, RemoteTarget], model: Write) -> None:
    target = vertex[1]
    on_gpu = DeployRequest(model(), "census", config=ServingConfig("n1-standard-4", "NVIDIA_TESLA_T4", 1))
    own = replace(on_gpu, service=ServiceOptions(image="us-central1-docker.pkg.dev/p/own/serving:1"))
    said = [
        [warning for warning in plan_deploy(request, target).warnings if warning.startswith("IMAGE_FOR_GPU: ")]
        for request in (on_gpu, own, replace(on_gpu, config=MACHINES[0]))
    ]
    assert [len(warnings) for warnings in said] == [1, 0, 0] and "_GPU=true" in said[0][0]
    prebuilt = ServiceOptions(image="us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest")
    refusal = plan_deploy(replace(on_gpu, service=prebuilt), target).refusal()
    assert refusal is not None and refusal.code == "IMAGE_WITHOUT_GPU"


def test_the_longest_name_has_a_probe_too(vertex: tuple[FakeVertex, RemoteTarget], model: Write) -> None:
    for name in ("n" * 122, "n" * 128):
        done = deploy(DeployRequest(model("1", golden=GOLDEN), name), vertex[1])
        assert (done.outcome, done.warnings) == ("created", ())


NETWORK, KEY = "projects/123/global/networks/n", "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"


@pytest.mark.parametrize(
    ("made", "asked", "what"),
    [
        ({}, {"network": NETWORK}, f"is public, and the version is to be in {NETWORK}"),
        ({"network": NETWORK}, {}, f"is in {NETWORK}, and the version is to be public"),
        ({}, {"encryption_key": KEY}, f"is encrypted by Google's own keys, not with {KEY}"),
    ],
)
def test_an_endpoint_that_was_made_otherwise_is_refused(
    vertex: tuple[FakeVertex, RemoteTarget], model: Write, made: dict[str, str], asked: dict[str, str], what: str
) -> None:
    service, target = vertex
    deploy(DeployRequest(model("1"), "census", service=ServiceOptions(**made)), target)
    service.log.clear()
    request = DeployRequest(model("1"), "census", service=ServiceOptions(**asked))
    for act in (plan_deploy, deploy):
        with pytest.raises(DeployRefused, match=what) as refused:
            act(request, target)
        assert refused.value.code == "ENDPOINT_DIFFERS"
    assert {method.split(".")[-1] for method in service.log} <= {"get", "list", "listVersions"}


def test_a_private_endpoint_runs_one_version_without_a_split(
    vertex: tuple[FakeVertex, RemoteTarget], model: Write
) -> None:
    target = vertex[1]
    private = ServiceOptions(network=NETWORK)
    request = DeployRequest(model("1", golden=GOLDEN), "census", service=private)
    plan = plan_deploy(request, target)
    done = target.apply(plan)
    assert done.traffic == plan.traffic_after == {"1": 100}
    own = [step for step in plan.steps if step.params.get("endpoint", "").endswith("/census")]
    assert [(step.method, sorted(step.body or {})) for step in own] == [("endpoints.deployModel", ["deployedModel"])]
    assert (deploy(request, target).outcome, target.versions("census").live) == ("unchanged", "1")
    with pytest.raises(DeployRefused, match="where one version runs, and 1 does") as refused:
        deploy(DeployRequest(model("2"), "census", service=private), target)
    assert refused.value.code == "ONE_VERSION_ONLY"
    target.undeploy("census")
    assert deploy(DeployRequest(model("2"), "census", service=private), target).outcome == "created"


def test_what_fails_on_a_private_endpoint_is_taken_back(vertex: tuple[FakeVertex, RemoteTarget], model: Write) -> None:
    service, target = vertex
    service.tamper = lambda request: Tampering(False, 403) if ":mergeVersionAliases" in request.path else None
    with pytest.raises(DeployRefused, match="403"):
        deploy(DeployRequest(model("1"), "census", service=ServiceOptions(network=NETWORK)), target)
    assert (service.endpoints, service.models) == ({}, {})
