"""What somebody else made under a name is seen, shown and kept; it is never removed, and what it loses is said."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.target_suite import GOLDEN, WRONG
from tests.emulators.gcs import FakeGcs
from tests.emulators.remote_places import FAKES, Emulated
from tests.tiny_models import write_tiny_model

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets.remote_target import RemoteTarget
from servegraph.errors import DeployRefused

MODELS = "projects/p/locations/us-central1/models"
THEIRS = {
    "displayName": "census",
    "artifactUri": "gs://theirs/model",
    "containerSpec": {"imageUri": "theirs"},
    "versionCreateTime": "2026-01-01T00:00:00Z",
}


@dataclass
class Place:
    """A service, its storage, and models to deploy there as `census`."""

    kind: str
    service: Any
    storage: FakeGcs
    target: RemoteTarget
    models: Path

    def request(self, content: str, golden: Any = GOLDEN, **options: Any) -> DeployRequest:
        return DeployRequest(str(write_tiny_model(self.models / content, content, golden=golden)), "census", **options)

    def deploy(self, content: str, **options: Any) -> Any:
        return deploy(self.request(content, **options), self.target)

    def disown(self) -> None:
        """Take from what runs all that says who made it."""
        if self.kind == "vertex":
            for version in self.service.models[f"{MODELS}/census"].values():
                version["labels"] = {}
        elif self.kind == "ai-platform":
            for version in self.service.versions.values():
                version["labels"] = {}
        else:
            del self.service.objects["ConfigMap", "census-servegraph"]
            found = self.service.objects["InferenceService", "census"]
            found["metadata"]["annotations"] = {}
            found["spec"]["predictor"] = {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "gs://theirs"}}

    def traffic(self) -> dict[str, int]:
        return {v.version: v.traffic_percent for v in self.target.versions("census").versions}


def opened(kind: str, models: Path, stack: ExitStack) -> Place:
    service, storage = stack.enter_context(FAKES[kind]()), stack.enter_context(FakeGcs())
    storage.make_bucket("bucket")
    return Place(kind, service, storage, Emulated(kind, service.url, storage.url).open(stack), models)


@pytest.fixture(params=list(FAKES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield opened(request.param, tmp_path, stack)


@pytest.fixture
def vertex(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield opened("vertex", tmp_path, stack)


@pytest.fixture
def kserve(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield opened("kserve", tmp_path, stack)


def test_it_is_shown_and_not_removed(place: Place) -> None:
    place.deploy("1")
    place.disown()
    (only,) = place.target.versions("census").versions
    assert only.traffic_percent == 100
    for version in (None, only.version):
        with pytest.raises(DeployRefused, match="there is what servegraph did not make") as refused:
            place.target.undeploy("census", version)
        assert refused.value.code == "FOREIGN_DEPLOYMENTS"
    assert place.traffic() == {only.version: 100}


def test_its_place_is_not_taken(kserve: Place) -> None:
    kserve.deploy("1")
    kserve.disown()
    before = copy.deepcopy(kserve.service.objects)
    for golden in (GOLDEN, WRONG):
        request = kserve.request("2", golden=golden)
        for change in (plan_deploy, deploy):
            with pytest.raises(DeployRefused) as refused:
                change(request, kserve.target)
            assert refused.value.code == "FOREIGN_DEPLOYMENTS"
    assert kserve.service.objects == before


def test_the_traffic_that_it_loses_is_said_and_can_go_back(place: Place) -> None:
    if place.kind == "kserve":
        pytest.skip("nothing is deployed beside it")
    place.deploy("1")
    place.disown()
    with pytest.raises(DeployRefused):
        place.deploy("0", golden=WRONG)
    assert place.traffic() == {"1": 100}
    plan = plan_deploy(place.request("2"), place.target)
    done = place.deploy("2", keep_versions=1)
    for warning in (plan.warnings[0], done.warnings[0]):
        assert "FOREIGN_TRAFFIC: version 1 " in warning and "from 100 to 0 % of the traffic" in warning
    assert place.traffic() == {"2": 100, "1": 0}
    back = place.target.rollback("census")
    assert (back.outcome, dict(back.traffic), back.warnings) == ("rolled_back", {"1": 100}, ())
    assert back.labels == {"stable": "2"}
    assert "FOREIGN_TRAFFIC: version 1 " in place.target.rollback("census", "2").warnings[0]


def test_a_model_of_somebody_else_stays(tmp_path: Path) -> None:
    with ExitStack() as stack:
        place = opened("ai-platform", tmp_path, stack)
        place.service.models_create({"name": "census", "description": "The model of team B."}, "projects/p")
        assert place.target.undeploy("census").outcome == "unchanged"
        place.deploy("1")
        gone = place.target.undeploy("census")
        assert (gone.outcome, gone.removed, len(gone.warnings)) == ("removed", ("1",), 1)
        assert list(place.service.models) == ["projects/p/models/census"] and not place.service.versions


def test_of_a_registered_model_only_our_versions_go(vertex: Place) -> None:
    theirs = f"{MODELS}/1234567890"
    versions = {n: {**THEIRS, "name": theirs, "versionId": n, "versionAliases": []} for n in "12"}
    versions["2"]["versionAliases"] = ["default"]
    vertex.service.models[theirs] = copy.deepcopy(versions)
    untouched = vertex.target.undeploy("census")
    assert untouched.outcome == "unchanged"
    assert untouched.warnings == tuple(f"KEPT: {theirs}{n}, which servegraph did not make." for n in ("", "@2", "@1"))
    for content in "34":
        vertex.deploy(content)
    with pytest.raises(DeployRefused):
        vertex.deploy("5", golden=WRONG)
    assert set(vertex.service.models[theirs]) == set("1234")
    gone = vertex.target.undeploy("census")
    assert (gone.outcome, gone.removed, gone.warnings) == ("removed", ("3", "4"), untouched.warnings)
    assert vertex.service.models == {theirs: versions} and not vertex.service.endpoints
    assert vertex.storage.names("bucket") == []


def test_another_model_on_the_endpoint(vertex: Place) -> None:
    vertex.deploy("1")
    (endpoint,) = vertex.service.endpoints.values()
    other = f"{MODELS}/other"
    vertex.service.models[other] = {"1": {**THEIRS, "name": other, "displayName": "other", "versionId": "1"}}
    endpoint["deployedModels"] = [{**endpoint["deployedModels"][0], "id": "777", "model": other}]
    endpoint["trafficSplit"] = {"777": 100}
    done = vertex.deploy("2")
    assert [warning.split(":")[0] for warning in done.warnings] == ["NO_SIGNATURE_GATE", "FOREIGN_TRAFFIC"]
    assert done.previous == "other@1"
    for to in (None, "2", "other@1"):
        vertex.target.rollback("census", to)
    assert endpoint["trafficSplit"]["777"] == 100
    with pytest.raises(DeployRefused) as refused:
        vertex.target.undeploy("census")
    assert refused.value.code == "FOREIGN_DEPLOYMENTS"
    assert vertex.target.undeploy("census", "2").removed == ("2",)


def test_a_model_that_is_called_as_a_probe_is_none(vertex: Place) -> None:
    for name in ("census-probe", "census"):
        deploy(replace(vertex.request("1"), name=name), vertex.target)
    assert vertex.target.versions("census-probe").live == "1"


def test_a_version_that_is_deployed_twice(vertex: Place) -> None:
    vertex.deploy("1")
    (endpoint,) = vertex.service.endpoints.values()
    (ours,) = endpoint["deployedModels"]
    endpoint["deployedModels"] = [{**ours, "id": "777"}, ours, {**ours, "id": "778"}]
    endpoint["trafficSplit"] = {"777": 30, ours["id"]: 50, "778": 20}
    assert vertex.traffic() == {"1": 50, "census@1": 30, "census@1#778": 20}
    assert vertex.deploy("2", traffic_percent=10).traffic == {"1": 45, "census@1": 27, "census@1#778": 18, "2": 10}
    assert dict(vertex.target.rollback("census", "census@1#778").traffic) == {"census@1#778": 100}


def test_a_copy_of_our_version_is_not_deployed_beside_it(vertex: Place) -> None:
    """A copy in the registry (`models.copy`) has our labels, and is newer than the version that runs."""
    vertex.deploy("1")
    (versions,) = vertex.service.models.values()
    versions["2"] = {**versions["1"], "versionId": "2", "versionAliases": []}
    assert vertex.deploy("1").outcome == "unchanged"
    second = vertex.deploy("2")
    assert (second.version, second.previous, second.traffic) == ("3", "1", {"3": 100})
    assert vertex.deploy("1").traffic == {"1": 100}


def test_ours_whose_config_map_was_lost_is_known_by_itself(kserve: Place) -> None:
    kserve.deploy("1")
    del kserve.service.objects["ConfigMap", "census-servegraph"]
    assert kserve.deploy("1").version == "1"
    assert kserve.deploy("1").outcome == "unchanged"
    del kserve.service.objects["ConfigMap", "census-servegraph"]
    assert kserve.deploy("2").previous == "1"
    assert kserve.target.rollback("census").traffic == {"1": 100}
    del kserve.service.objects["ConfigMap", "census-servegraph"]
    assert kserve.target.undeploy("census").removed == ("1",)
    assert not kserve.service.objects and kserve.storage.names("bucket") == []
