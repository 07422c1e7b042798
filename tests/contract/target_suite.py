"""What every target promises, asked of each: on emulators (`test_targets.py`) and on real services (tests/live).

A module that has the fixtures `place` and `model` imports these tests. Nothing in them knows what serves: a model
doubles `x`, and where an answer has to be wrong it was recorded wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest
from tests.tiny_models import Y

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets import Target
from servegraph.errors import DeployRefused, InputError, ModelError
from servegraph.serve.state import ServingConfig

GOLDEN = [{"signature_name": "serving_default", "inputs": {"x": [1.0, 2.5]}, "outputs": {"y": [2.0, 5.0]}}]
WRONG = [{**GOLDEN[0], "outputs": {"y": [3.0, 5.0]}}]


class Write(Protocol):
    """Writes a model and returns its URI; the same content twice is the same model in another place."""

    def __call__(self, content: str = "1", **parts: object) -> str: ...


@dataclass(frozen=True)
class There:
    """One target: how to open it, two ways to serve there, and a name that nothing else has."""

    open: Callable[[], Target]
    configs: tuple[ServingConfig, ServingConfig]
    shares: bool = True  # whether several versions may have traffic
    name: str = "census"


def test_a_plan_changes_nothing_and_says_what_comes(place: There, model: Write) -> None:
    request = DeployRequest(model(), place.name)
    plan = plan_deploy(request, place.open())
    assert plan_deploy(request, place.open()) == plan
    assert (plan.outcome, plan.version, dict(plan.traffic_before)) == ("created", "1", {})
    with pytest.raises(InputError):
        place.open().versions(place.name)
    done = place.open().apply(plan)
    assert (done.outcome, done.version, done.resource) == (plan.outcome, plan.version, plan.resource)
    assert done.traffic == plan.traffic_after == {"1": 100}
    assert plan.to_json()["plan"] is True


def test_first_created_then_unchanged_then_updated(place: There, model: Write) -> None:
    first = deploy(DeployRequest(model("1"), place.name), place.open())
    assert (first.outcome, first.version, first.previous) == ("created", "1", None)
    again = deploy(DeployRequest(model("1"), place.name), place.open())
    assert (again.outcome, again.version, again.resource) == ("unchanged", "1", first.resource)
    second = deploy(DeployRequest(model("2"), place.name), place.open())
    assert (second.outcome, second.version, second.previous) == ("updated", "2", "1")
    assert second.traffic == {"2": 100}


def test_the_serving_configuration_is_part_of_the_identity(place: There, model: Write) -> None:
    one, two = place.configs
    request = DeployRequest(model(), place.name, config=one)
    assert deploy(request, place.open()).machine_type == one.machine_type
    assert deploy(request, place.open()).outcome == "unchanged"
    done = deploy(replace(request, config=two), place.open())
    assert (done.outcome, done.version, done.machine_type) == ("updated", "2", two.machine_type)
    assert place.open().versions(place.name).versions[0].config == two


def test_models_do_not_touch_each_other(place: There, model: Write) -> None:
    other = f"{place.name}-b"
    deploy(DeployRequest(model("1"), place.name), place.open())
    deploy(DeployRequest(model("2"), other), place.open())
    place.open().undeploy(place.name)
    assert place.open().versions(other).live == "1"
    place.open().undeploy(other)


def test_versions_are_listed_newest_first(place: There, model: Write) -> None:
    for content in "12":
        deploy(DeployRequest(model(content), place.name, labels=(f"l{content}",)), place.open())
    found = place.open().versions(place.name)
    assert (found.name, found.live, found.previous) == (place.name, "2", "1")
    assert [version.version for version in found.versions] == ["2", "1"]
    assert [version.traffic_percent for version in found.versions] == [100, 0]
    assert [version.labels for version in found.versions] == [("l2", "stable"), ("l1",)]
    assert found.versions[0].digest != found.versions[1].digest


def test_old_versions_go_and_the_previous_one_stays(place: There, model: Write) -> None:
    for content in "123":
        done = deploy(DeployRequest(model(content), place.name, keep_versions=2), place.open())
    assert done.removed == ("1",)
    assert [version.version for version in place.open().versions(place.name).versions] == ["3", "2"]
    place.open().rollback(place.name)
    # The version that was rolled back is the one nobody needs: not the previous live one.
    done = deploy(DeployRequest(model("4"), place.name, keep_versions=2), place.open())
    assert (done.previous, done.removed) == ("2", ("3",))


def test_the_numbers_of_removed_versions_are_not_used_again(place: There, model: Write) -> None:
    for content in "12":
        deploy(DeployRequest(model(content), place.name), place.open())
    place.open().rollback(place.name)
    place.open().undeploy(place.name, "2")
    assert deploy(DeployRequest(model("3"), place.name), place.open()).version == "3"


def test_rollback_and_back(place: There, model: Write) -> None:
    for content in "12":
        deploy(DeployRequest(model(content), place.name), place.open())
    done = place.open().rollback(place.name)
    assert (done.outcome, done.version, done.previous) == ("rolled_back", "1", "2")
    assert done.traffic == {"1": 100} and done.labels["stable"] == "1"
    again = place.open().rollback(place.name)
    assert (again.outcome, again.version) == ("unchanged", "1")
    assert "already rolled back from version 2 to 1" in again.warnings[0]
    forward = place.open().rollback(place.name, "2")
    assert (forward.outcome, forward.version) == ("rolled_back", "2")
    assert place.open().rollback(place.name, "2").outcome == "unchanged"
    assert place.open().rollback(place.name).version == "1"


def test_a_rolled_back_model_can_be_deployed_again(place: There, model: Write) -> None:
    for content in "12":
        deploy(DeployRequest(model(content), place.name), place.open())
    place.open().rollback(place.name)
    done = deploy(DeployRequest(model("2"), place.name), place.open())
    assert (done.outcome, done.version, done.previous) == ("updated", "2", "1")
    assert place.open().rollback(place.name).version == "1"


def test_no_way_back_is_shown_to_a_version_that_was_let_go(place: There, model: Write) -> None:
    deploy(DeployRequest(model("1"), place.name), place.open())
    done = deploy(DeployRequest(model("2"), place.name, keep_versions=1), place.open())
    assert (done.removed, done.previous, place.open().versions(place.name).previous) == (("1",), None, None)
    with pytest.raises((InputError, DeployRefused)) as refused:
        place.open().rollback(place.name)
    assert refused.value.code in ("NOT_DEPLOYED", "NO_PREVIOUS_VERSION")
    assert "Deploy " in refused.value.fix
    deploy(DeployRequest(model("1"), place.name), place.open())
    assert place.open().rollback(place.name).version == "2"


def test_rollback_to_nothing(place: There, model: Write) -> None:
    with pytest.raises(InputError, match=r"No version of '.*' is deployed") as missing:
        place.open().rollback(place.name)
    assert missing.value.code == "NOT_DEPLOYED"
    deploy(DeployRequest(model(), place.name), place.open())
    with pytest.raises(DeployRefused) as refused:
        place.open().rollback(place.name)
    assert refused.value.code == "NO_PREVIOUS_VERSION"
    with pytest.raises(InputError, match="has no version 9"):
        place.open().rollback(place.name, "9")


def test_undeploy_leaves_the_live_version_and_is_idempotent(place: There, model: Write) -> None:
    for content in "12":
        deploy(DeployRequest(model(content), place.name), place.open())
    with pytest.raises(DeployRefused, match=r"Version 2 of .* has 100 % of the traffic") as refused:
        place.open().undeploy(place.name, "2")
    assert refused.value.code == "HAS_TRAFFIC"
    assert place.open().undeploy(place.name, "1").outcome == "removed"
    assert place.open().undeploy(place.name, "1").outcome == "unchanged"
    assert place.open().versions(place.name).live == "2"
    everything = place.open().undeploy(place.name)
    assert (everything.outcome, everything.version) == ("removed", None)
    assert everything.removed[-1] == "2"  # before it come those that a registry still had
    assert place.open().undeploy(place.name).outcome == "unchanged"
    with pytest.raises(InputError):
        place.open().versions(place.name)


def test_wrong_answers_publish_nothing(place: There, model: Write) -> None:
    with pytest.raises(DeployRefused, match=r"expected 3\.0, got 2\.0") as refused:
        deploy(DeployRequest(model("0", golden=WRONG), place.name), place.open())
    assert refused.value.code == "PROBE_FAILED"
    with pytest.raises(InputError):
        place.open().versions(place.name)
    first = deploy(DeployRequest(model("1", golden=GOLDEN), place.name), place.open()).version
    with pytest.raises(DeployRefused):
        deploy(DeployRequest(model("2", golden=WRONG), place.name), place.open())
    found = place.open().versions(place.name)
    assert (found.live, [version.version for version in found.versions]) == (first, [first])
    assert found.versions[0].traffic_percent == 100


def test_that_answers_are_not_checked_is_said(place: There, model: Write) -> None:
    quiet = deploy(DeployRequest(model("1"), place.name), place.open())
    assert "no golden requests" in quiet.warnings[0]
    assert deploy(DeployRequest(model("2", golden=GOLDEN), place.name), place.open()).warnings == ()


def test_a_signature_that_breaks_clients_is_refused_unless_allowed(place: There, model: Write) -> None:
    deploy(DeployRequest(model("1"), place.name), place.open())
    request = DeployRequest(model("2", inputs={"z": ("float32", [None])}), place.name)
    plan = plan_deploy(request, place.open())
    refusal = plan.refusal()
    assert refusal is not None and refusal.code == "SIGNATURE_CHANGED"
    with pytest.raises(DeployRefused, match="serving_default: input 'x' is gone"):
        place.open().apply(plan)
    assert place.open().versions(place.name).live == "1"
    assert deploy(replace(request, allow_signature_change=True), place.open()).version == "2"
    wider = {**Y, "p": ("float32", [None, 2])}
    with pytest.raises(DeployRefused, match="the only output 'y' has company now"):
        deploy(
            DeployRequest(model("3", inputs={"z": ("float32", [None])}, outputs=wider), place.name),
            place.open(),
        )


def test_a_plan_that_was_overtaken_becomes_what_is_right_now(place: There, model: Write) -> None:
    one, two = DeployRequest(model("1"), place.name), DeployRequest(model("2"), place.name)
    plan_one, plan_two = plan_deploy(one, place.open()), plan_deploy(two, place.open())
    assert place.open().apply(plan_one).outcome == "created"
    assert place.open().apply(plan_one).outcome == "unchanged"
    done = place.open().apply(plan_two)
    assert (done.outcome, done.version, done.previous) == ("updated", "2", "1")


def test_no_traffic_means_none_until_it_is_given(place: There, model: Write) -> None:
    deploy(DeployRequest(model("1"), place.name), place.open())
    held = DeployRequest(model("2", golden=GOLDEN), place.name, traffic_percent=0)
    done = deploy(held, place.open())
    assert (done.outcome, done.version, dict(done.traffic)) == ("updated", "2", {"1": 100})
    assert place.open().versions(place.name).live == "1"
    assert deploy(held, place.open()).outcome == "unchanged"
    done = deploy(replace(held, traffic_percent=100), place.open())
    assert (done.outcome, done.previous, dict(done.traffic)) == ("updated", "1", {"2": 100})
    with pytest.raises(InputError) as refused:
        deploy(held, place.open())
    assert refused.value.code == "NOTHING_ELSE_TO_SERVE"


def test_a_share_of_the_traffic_and_back(place: There, model: Write) -> None:
    deploy(DeployRequest(model("1"), place.name), place.open())
    canary = DeployRequest(model("2", golden=GOLDEN), place.name, traffic_percent=20)
    if not place.shares:
        with pytest.raises(InputError) as refused:
            deploy(canary, place.open())
        assert refused.value.code == "NO_TRAFFIC_SPLIT"
        return
    plan = plan_deploy(canary, place.open())
    done = place.open().apply(plan)
    assert done.traffic == plan.traffic_after == {"1": 80, "2": 20}
    assert deploy(canary, place.open()).outcome == "unchanged"
    back = place.open().rollback(place.name)
    assert (back.outcome, back.version, dict(back.traffic)) == ("rolled_back", "1", {"1": 100})
    done = deploy(replace(canary, traffic_percent=100), place.open())
    assert (done.version, done.previous, dict(done.traffic)) == ("2", "1", {"2": 100})


def test_the_first_version_has_all_or_nothing(place: There, model: Write) -> None:
    with pytest.raises(InputError) as refused:
        deploy(DeployRequest(model(), place.name, traffic_percent=20), place.open())
    assert refused.value.code in ("NOTHING_ELSE_TO_SERVE", "NO_TRAFFIC_SPLIT")
    with pytest.raises(InputError):
        place.open().versions(place.name)


def test_labels_move(place: There, model: Write) -> None:
    deploy(DeployRequest(model("1"), place.name, labels=("canary",)), place.open())
    done = deploy(DeployRequest(model("2"), place.name, labels=("canary",)), place.open())
    assert done.labels == {"canary": "2", "stable": "2"}
    again = DeployRequest(model("2"), place.name, labels=("gold",))
    assert deploy(again, place.open()).outcome == "updated"
    assert deploy(again, place.open()).outcome == "unchanged"
    assert place.open().versions(place.name).previous == "1"


@pytest.mark.parametrize("name", ["../census", "a/b", "", ".hidden", "a:predict"])
def test_names_that_could_lead_elsewhere(place: There, model: Write, name: str) -> None:
    for change in (
        lambda: deploy(DeployRequest(model(), name), place.open()),
        lambda: place.open().rollback(name),
        lambda: place.open().undeploy(name),
        lambda: place.open().versions(name),
    ):
        with pytest.raises(InputError) as caught:
            change()
        assert caught.value.code == "BAD_MODEL_NAME"


def test_what_is_not_a_servable_model(place: There, tmp_path: Path, model: Write) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"is not a SavedModel"):
        deploy(DeployRequest(str(tmp_path / "empty"), place.name), place.open())
    bad_golden = Path(model("1", golden=[{"inputs": {}}]))
    with pytest.raises(ModelError, match=r"Line 1 of assets\.extra/golden_requests\.jsonl\.gz") as caught:
        deploy(DeployRequest(str(bad_golden), place.name), place.open())
    assert caught.value.code == "BAD_GOLDEN_REQUESTS"
