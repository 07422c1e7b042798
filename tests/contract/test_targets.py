"""What every target promises, asked of each. No model is loaded: what serves is a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.emulators.gcs import FakeGcs
from tests.emulators.remote_places import FAKES, Emulated
from tests.tiny_models import SCHEMA_VERSION, Y, saved_model, write_tiny_model

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.golden import GoldenRequest
from servegraph.deploy_version.plan import DeployRequest, ServiceOptions, Tolerance
from servegraph.deploy_version.targets import TARGETS, Place, Target, open_target
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.errors import DeployRefused, InputError, ModelError
from servegraph.routine.manifest import Routine
from servegraph.savedmodel.layout import content_digest
from servegraph.serve.signatures import Signatures
from servegraph.serve.state import ServingConfig
from servegraph.storage import open_dir

GOLDEN = [{"signature_name": "serving_default", "inputs": {"x": [1.0, 2.5]}, "outputs": {"y": [2.0, 5.0]}}]


MACHINES = ServingConfig("n1-standard-2"), ServingConfig("n1-standard-4", "NVIDIA_TESLA_V100", 1)
CONTAINERS = ServingConfig("container"), ServingConfig("container", "nvidia.com/gpu", 1)


class Server(Protocol):
    """What serves the versions in a test: it doubles `x`, or answers wrongly while `broken`."""

    broken: bool


@dataclass
class LocalProbe:
    """Stands in for the server that the local target starts."""

    broken: bool = False

    def __call__(
        self,
        root: Path,
        name: str,
        signatures: Signatures,
        golden: tuple[GoldenRequest, ...],
        tolerance: Tolerance,
        routine: Routine | None,
    ) -> None:
        (version,) = (root / name).iterdir()
        assert (version / "saved_model.pb").is_file()
        if self.broken and golden:
            raise DeployRefused("Golden request 1: expected 2.0, got 3.0", code="PROBE_FAILED")


@dataclass
class Doubling:
    """Stands in for the containers of a service."""

    broken: bool = False

    def __call__(self, uri: str, instances: list[Any]) -> list[Any]:
        return [2 * instance["x"] + self.broken for instance in instances]


@dataclass(frozen=True)
class There:
    """One target: how to open it, and what serves there."""

    open: Callable[[], Target]
    server: Server
    configs: tuple[ServingConfig, ServingConfig]
    shares: bool = True  # whether several versions may have traffic


def on_local(tmp_path: Path, stack: ExitStack) -> There:
    probe = LocalProbe()
    return There(lambda: LocalTarget(tmp_path / "root", probe=probe, lock_timeout_s=0.3), probe, MACHINES)


def on(kind: str) -> Callable[[Path, ExitStack], There]:
    def make(tmp_path: Path, stack: ExitStack) -> There:
        service, storage = stack.enter_context(FAKES[kind]()), stack.enter_context(FakeGcs())
        storage.make_bucket("bucket")
        service.answer = server = Doubling()
        place = Emulated(kind, service.url, storage.url)
        configs = CONTAINERS if kind == "kserve" else MACHINES
        return There(lambda: place.open(stack), server, configs, shares=kind != "ai-platform")

    return make


@pytest.fixture(params=[on_local, *map(on, FAKES)], ids=["local", *FAKES])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[There]:
    with ExitStack() as stack:
        yield request.param(tmp_path, stack)


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., str]:
    """Write a model and return its URI; the same content twice is the same model in another place."""
    made: list[Path] = []

    def write(content: str = "1", **parts: object) -> str:
        made.append(write_tiny_model(tmp_path / "models" / str(len(made)), content, **parts))
        return str(made[-1])

    return write


def test_a_plan_changes_nothing_and_says_what_comes(place: There, model: Callable[..., str]) -> None:
    request = DeployRequest(model(), "census")
    plan = plan_deploy(request, place.open())
    assert plan_deploy(request, place.open()) == plan
    assert (plan.outcome, plan.version, dict(plan.traffic_before)) == ("created", "1", {})
    with pytest.raises(InputError):
        place.open().versions("census")
    done = place.open().apply(plan)
    assert (done.outcome, done.version, done.resource) == (plan.outcome, plan.version, plan.resource)
    assert done.traffic == plan.traffic_after == {"1": 100}
    assert plan.to_json()["plan"] is True


def test_first_created_then_unchanged_then_updated(place: There, model: Callable[..., str]) -> None:
    first = deploy(DeployRequest(model("1"), "census"), place.open())
    assert (first.outcome, first.version, first.previous) == ("created", "1", None)
    again = deploy(DeployRequest(model("1"), "census"), place.open())
    assert (again.outcome, again.version, again.resource) == ("unchanged", "1", first.resource)
    second = deploy(DeployRequest(model("2"), "census"), place.open())
    assert (second.outcome, second.version, second.previous) == ("updated", "2", "1")
    assert second.traffic == {"2": 100}


def test_the_serving_configuration_is_part_of_the_identity(place: There, model: Callable[..., str]) -> None:
    one, two = place.configs
    request = DeployRequest(model(), "census", config=one)
    assert deploy(request, place.open()).machine_type == one.machine_type
    assert deploy(request, place.open()).outcome == "unchanged"
    done = deploy(replace(request, config=two), place.open())
    assert (done.outcome, done.version, done.machine_type) == ("updated", "2", two.machine_type)
    assert place.open().versions("census").versions[0].config == two


def test_models_do_not_touch_each_other(place: There, model: Callable[..., str]) -> None:
    deploy(DeployRequest(model("1"), "a"), place.open())
    deploy(DeployRequest(model("2"), "b"), place.open())
    place.open().undeploy("a")
    assert place.open().versions("b").live == "1"


def test_versions_are_listed_newest_first(place: There, model: Callable[..., str]) -> None:
    for content in "12":
        deploy(DeployRequest(model(content), "census", labels=(f"l{content}",)), place.open())
    found = place.open().versions("census")
    assert (found.name, found.live, found.previous) == ("census", "2", "1")
    assert [version.version for version in found.versions] == ["2", "1"]
    assert [version.traffic_percent for version in found.versions] == [100, 0]
    assert [version.labels for version in found.versions] == [("l2", "stable"), ("l1",)]
    assert found.versions[0].digest != found.versions[1].digest


def test_old_versions_go_and_the_previous_one_stays(place: There, model: Callable[..., str]) -> None:
    for content in "123":
        done = deploy(DeployRequest(model(content), "census", keep_versions=2), place.open())
    assert done.removed == ("1",)
    assert [version.version for version in place.open().versions("census").versions] == ["3", "2"]
    place.open().rollback("census")
    # The version that was rolled back is the one nobody needs: not the previous live one.
    done = deploy(DeployRequest(model("4"), "census", keep_versions=2), place.open())
    assert (done.previous, done.removed) == ("2", ("3",))


def test_the_numbers_of_removed_versions_are_not_used_again(place: There, model: Callable[..., str]) -> None:
    for content in "12":
        deploy(DeployRequest(model(content), "census"), place.open())
    place.open().rollback("census")
    place.open().undeploy("census", "2")
    assert deploy(DeployRequest(model("3"), "census"), place.open()).version == "3"


def test_rollback_and_back(place: There, model: Callable[..., str]) -> None:
    for content in "12":
        deploy(DeployRequest(model(content), "census"), place.open())
    done = place.open().rollback("census")
    assert (done.outcome, done.version, done.previous) == ("rolled_back", "1", "2")
    assert done.traffic == {"1": 100} and done.labels["stable"] == "1"
    again = place.open().rollback("census")
    assert (again.outcome, again.version) == ("unchanged", "1")
    assert "already rolled back from version 2 to 1" in again.warnings[0]
    forward = place.open().rollback("census", "2")
    assert (forward.outcome, forward.version) == ("rolled_back", "2")
    assert place.open().rollback("census", "2").outcome == "unchanged"
    assert place.open().rollback("census").version == "1"


def test_a_rolled_back_model_can_be_deployed_again(place: There, model: Callable[..., str]) -> None:
    for content in "12":
        deploy(DeployRequest(model(content), "census"), place.open())
    place.open().rollback("census")
    done = deploy(DeployRequest(model("2"), "census"), place.open())
    assert (done.outcome, done.version, done.previous) == ("updated", "2", "1")
    assert place.open().rollback("census").version == "1"


def test_rollback_to_nothing(place: There, model: Callable[..., str]) -> None:
    with pytest.raises(InputError, match="No version of 'census' is deployed") as missing:
        place.open().rollback("census")
    assert missing.value.code == "NOT_DEPLOYED"
    deploy(DeployRequest(model(), "census"), place.open())
    with pytest.raises(DeployRefused) as refused:
        place.open().rollback("census")
    assert refused.value.code == "NO_PREVIOUS_VERSION"
    with pytest.raises(InputError, match="has no version 9"):
        place.open().rollback("census", "9")


def test_undeploy_leaves_the_live_version_and_is_idempotent(place: There, model: Callable[..., str]) -> None:
    for content in "12":
        deploy(DeployRequest(model(content), "census"), place.open())
    with pytest.raises(DeployRefused, match=r"Version 2 of census has 100 % of the traffic") as refused:
        place.open().undeploy("census", "2")
    assert refused.value.code == "HAS_TRAFFIC"
    assert place.open().undeploy("census", "1").outcome == "removed"
    assert place.open().undeploy("census", "1").outcome == "unchanged"
    assert place.open().versions("census").live == "2"
    everything = place.open().undeploy("census")
    assert (everything.outcome, everything.version, everything.removed) == ("removed", None, ("2",))
    assert place.open().undeploy("census").outcome == "unchanged"
    with pytest.raises(InputError):
        place.open().versions("census")


def test_wrong_answers_publish_nothing(place: There, model: Callable[..., str]) -> None:
    place.server.broken = True
    with pytest.raises(DeployRefused, match=r"expected 2\.0, got 3\.0") as refused:
        deploy(DeployRequest(model("1", golden=GOLDEN), "census"), place.open())
    assert refused.value.code == "PROBE_FAILED"
    with pytest.raises(InputError):
        place.open().versions("census")
    place.server.broken = False
    deploy(DeployRequest(model("1", golden=GOLDEN), "census"), place.open())
    place.server.broken = True
    with pytest.raises(DeployRefused):
        deploy(DeployRequest(model("2", golden=GOLDEN), "census"), place.open())
    found = place.open().versions("census")
    assert (found.live, [version.version for version in found.versions]) == ("1", ["1"])
    assert found.versions[0].traffic_percent == 100


def test_that_answers_are_not_checked_is_said(place: There, model: Callable[..., str]) -> None:
    place.server.broken = True
    quiet = deploy(DeployRequest(model("1"), "census"), place.open())
    assert "no golden requests" in quiet.warnings[0]
    place.server.broken = False
    assert deploy(DeployRequest(model("2", golden=GOLDEN), "census"), place.open()).warnings == ()


def test_a_signature_that_breaks_clients_is_refused_unless_allowed(place: There, model: Callable[..., str]) -> None:
    deploy(DeployRequest(model("1"), "census"), place.open())
    request = DeployRequest(model("2", inputs={"z": ("float32", [None])}), "census")
    plan = plan_deploy(request, place.open())
    refusal = plan.refusal()
    assert refusal is not None and refusal.code == "SIGNATURE_CHANGED"
    with pytest.raises(DeployRefused, match="serving_default: input 'x' is gone"):
        place.open().apply(plan)
    assert place.open().versions("census").live == "1"
    assert deploy(replace(request, allow_signature_change=True), place.open()).version == "2"
    wider = {**Y, "p": ("float32", [None, 2])}
    with pytest.raises(DeployRefused, match="the only output 'y' has company now"):
        deploy(
            DeployRequest(model("3", inputs={"z": ("float32", [None])}, outputs=wider), "census"),
            place.open(),
        )


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


def test_a_plan_that_was_overtaken_becomes_what_is_right_now(place: There, model: Callable[..., str]) -> None:
    one, two = DeployRequest(model("1"), "census"), DeployRequest(model("2"), "census")
    plan_one, plan_two = plan_deploy(one, place.open()), plan_deploy(two, place.open())
    assert place.open().apply(plan_one).outcome == "created"
    assert place.open().apply(plan_one).outcome == "unchanged"
    done = place.open().apply(plan_two)
    assert (done.outcome, done.version, done.previous) == ("updated", "2", "1")


def test_no_traffic_means_none_until_it_is_given(place: There, model: Callable[..., str]) -> None:
    deploy(DeployRequest(model("1"), "census"), place.open())
    held = DeployRequest(model("2", golden=GOLDEN), "census", traffic_percent=0)
    done = deploy(held, place.open())
    assert (done.outcome, done.version, dict(done.traffic)) == ("updated", "2", {"1": 100})
    assert place.open().versions("census").live == "1"
    assert deploy(held, place.open()).outcome == "unchanged"
    done = deploy(replace(held, traffic_percent=100), place.open())
    assert (done.outcome, done.previous, dict(done.traffic)) == ("updated", "1", {"2": 100})
    with pytest.raises(InputError) as refused:
        deploy(held, place.open())
    assert refused.value.code == "NOTHING_ELSE_TO_SERVE"


def test_a_share_of_the_traffic_and_back(place: There, model: Callable[..., str]) -> None:
    deploy(DeployRequest(model("1"), "census"), place.open())
    canary = DeployRequest(model("2", golden=GOLDEN), "census", traffic_percent=20)
    if not place.shares:
        with pytest.raises(InputError) as refused:
            deploy(canary, place.open())
        assert refused.value.code == "NO_TRAFFIC_SPLIT"
        return
    plan = plan_deploy(canary, place.open())
    done = place.open().apply(plan)
    assert done.traffic == plan.traffic_after == {"1": 80, "2": 20}
    assert deploy(canary, place.open()).outcome == "unchanged"
    back = place.open().rollback("census")
    assert (back.outcome, back.version, dict(back.traffic)) == ("rolled_back", "1", {"1": 100})
    done = deploy(replace(canary, traffic_percent=100), place.open())
    assert (done.version, done.previous, dict(done.traffic)) == ("2", "1", {"2": 100})


def test_the_first_version_has_all_or_nothing(place: There, model: Callable[..., str]) -> None:
    with pytest.raises(InputError) as refused:
        deploy(DeployRequest(model(), "census", traffic_percent=20), place.open())
    assert refused.value.code in ("NOTHING_ELSE_TO_SERVE", "NO_TRAFFIC_SPLIT")
    with pytest.raises(InputError):
        place.open().versions("census")


def test_labels_move(place: There, model: Callable[..., str]) -> None:
    deploy(DeployRequest(model("1"), "census", labels=("canary",)), place.open())
    done = deploy(DeployRequest(model("2"), "census", labels=("canary",)), place.open())
    assert done.labels == {"canary": "2", "stable": "2"}
    again = DeployRequest(model("2"), "census", labels=("gold",))
    assert deploy(again, place.open()).outcome == "updated"
    assert deploy(again, place.open()).outcome == "unchanged"
    assert place.open().versions("census").previous == "1"


@pytest.mark.parametrize("name", ["../census", "a/b", "", ".hidden", "a:predict"])
def test_names_that_could_lead_elsewhere(place: There, model: Callable[..., str], name: str) -> None:
    for change in (
        lambda: deploy(DeployRequest(model(), name), place.open()),
        lambda: place.open().rollback(name),
        lambda: place.open().undeploy(name),
        lambda: place.open().versions(name),
    ):
        with pytest.raises(InputError) as caught:
            change()
        assert caught.value.code == "BAD_MODEL_NAME"


def test_what_is_not_a_servable_model(place: There, tmp_path: Path, model: Callable[..., str]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"is not a SavedModel"):
        deploy(DeployRequest(str(tmp_path / "empty"), "census"), place.open())
    bad_golden = Path(model("1", golden=[{"inputs": {}}]))
    with pytest.raises(ModelError, match=r"Line 1 of assets\.extra/golden_requests\.jsonl\.gz") as caught:
        deploy(DeployRequest(str(bad_golden), "census"), place.open())
    assert caught.value.code == "BAD_GOLDEN_REQUESTS"


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
