"""What the targets send and what they remember: the plan's requests, labels, names and state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.contract.world import World

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.plan import ServiceOptions
from servegraph.errors import InputError


def test_a_damaged_memory_is_not_taken_for_none(world: World) -> None:
    if world.kind != "kserve":
        pytest.skip("the service remembers")
    world.fresh("damaged")
    for text in ('{"versions": {"1": {}}}', '{"newer": 1}', "{"):
        world.service.objects["ConfigMap", "damaged-servegraph"]["data"]["versions.json"] = text
        for act in (lambda: deploy(world.request("2"), world.target), lambda: world.target.versions("damaged")):
            with pytest.raises(InputError) as refused:
                act()
            assert refused.value.code == "BAD_STATE"
    assert world.traffic() == {"1": 100}


def test_the_requests_of_a_plan_are_those_that_are_sent(world: World) -> None:
    """But for what only the answers before them say: etags and versions of resources."""
    world.name = "planned"
    for content in "123":
        request = world.request(content)
        plan = plan_deploy(request, world.target)
        for server in (world.service, world.storage):
            server.calls.clear()
        world.target.apply(plan)
        sent = [call.request for call in world.service.calls if call.request.method != "GET"]
        changes = [r for r in sent if not r.path.endswith(":predict") and "dryRun" not in r.query]
        assert [without_tags(r.json()) for r in changes] == [
            without_tags(dict(step.body or {})) for step in plan.steps if step.method
        ], content
    assert [step.action for step in plan.steps if step.action in ("shift", "undeploy", "remove")]


def without_tags(body: Any) -> Any:
    """A body as it is known before: also without a name that its path has already, and empty fields."""
    if not isinstance(body, dict):
        return body
    tags = ("etag", "resourceVersion", "namespace", "finalizers")
    is_resource = str(body.get("name", "")).startswith("projects/")
    left = {key: v for key, v in body.items() if key not in tags and v != {} and not (key == "name" and is_resource)}
    return {key: without_tags(value) for key, value in left.items()}


def test_labels_that_google_does_not_take_are_refused_at_once(world: World) -> None:
    if world.kind == "kserve":
        pytest.skip("the cluster is asked, by a dry run")
    world.name = "labelled"
    with pytest.raises(InputError, match="Team=Fraud X cannot be a label"):
        deploy(replace(world.request("1"), service=ServiceOptions(labels=(("Team", "Fraud X"),))), world.target)
    assert not world.service.calls and world.storage.names("bucket") == []


def test_the_alias_of_the_registry_itself_is_refused(world: World) -> None:
    if world.kind != "vertex":
        pytest.skip("there is no registry")
    world.name = "aliased"
    with pytest.raises(InputError, match="'default' goes with 'stable'") as refused:
        deploy(replace(world.request("1"), labels=("default",)), world.target)
    assert refused.value.code == "BAD_LABEL" and not world.service.calls


@pytest.mark.parametrize("what", ["endpoints", "models"])
def test_what_was_renamed_is_found_by_its_id(world: World, what: str) -> None:
    if world.kind != "vertex":
        pytest.skip("names are ids")
    world.fresh("called")
    (found,) = getattr(world.service, what).values()
    for resource in [found] if what == "endpoints" else found.values():
        resource["displayName"] = "renamed"
    assert deploy(world.request("1"), world.target).outcome == "unchanged"
    world.check(deploy(world.request("2"), world.target))
    world.target.undeploy("called")
    assert not world.service.models and not world.service.endpoints
