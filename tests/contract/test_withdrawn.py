"""A deploy that is cancelled, refused or finds a version that is wrong takes back what it began.

Version 1 keeps all traffic, nothing of version 2 is left, and the reason is said.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest
from tests.contract.world import GOLDEN, SPLITTING, World, assert_nothing_is_left, in_a_process, wait_for
from tests.emulators.http_server import Answer, Request, Tampering, json_answer
from tests.tiny_models import Y, write_tiny_model

from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.errors import DeployRefused
from servegraph.serve.state import ServingConfig


def test_cancelled_it_takes_back_what_it_began(world: World) -> None:
    world.fresh("cancelled")
    world.service.pending_polls = 10_000
    child = in_a_process(world, "2")
    child.start()
    marks = {"vertex": "register: ", "ai-platform": "deploy: ", "kserve": "await: "}
    report = world.models / "report.txt"
    wait_for(lambda: report.exists() and marks[world.kind] in report.read_text())
    if world.kind == "kserve":
        time.sleep(0.2)
    else:  # what was begun is polled: the answer that names it has come
        begun = world.service.operations
        wait_for(lambda: any(one.polls < 9_990 and not one.done for one in list(begun.values())))
    world.service.pending_polls = 0  # what takes it back is quick
    os.kill(child.pid, signal.SIGTERM)
    if world.kind == "kserve":  # the controller gets on; nothing is there to be cancelled
        for revision in world.service.revisions["cancelled"]:
            revision["polls"] = 0
    child.join(60)
    assert child.exitcode == 130, report.read_text()
    assert_nothing_is_left(world)


def test_cancelled_before_the_answer_that_names_what_it_began(world: World) -> None:
    if world.kind == "kserve":
        pytest.skip("nothing is there to be cancelled")
    world.fresh("cancelled")
    world.service.pending_polls = 10_000
    child = in_a_process(world, "2")

    def strike(index: int, request: Request) -> Tampering | None:
        if request.method != "POST" or not request.path.endswith(("/versions", "/models:upload")):
            return None
        world.tampering = lambda index, request: None
        return Tampering(after=True, act=end, stalls=True)

    def end() -> None:  # what was begun takes its time; what takes it back does not
        world.service.pending_polls = 0
        os.kill(child.pid, signal.SIGTERM)

    world.tampering = strike
    child.start()
    child.join(60)
    report = (world.models / "report.txt").read_text()
    assert child.exitcode == 130, report
    assert "cancel: " in report
    assert_nothing_is_left(world)


def test_out_of_stock_falls_back_and_says_so(world: World) -> None:
    if world.kind == "kserve":
        pytest.skip("the cluster picks the node")
    world.fresh("stock")
    world.service.out_of_stock = {"n1-standard-4"}
    request = replace(
        world.request("2"),
        config=ServingConfig("n1-standard-4"),
        fallbacks=(ServingConfig("n1-standard-8"),),
    )
    done = deploy(request, world.target)
    assert done.machine_type == "n1-standard-8"
    assert "FELL_BACK: n1-standard-4 is not to be had, n1-standard-8 is taken instead" in done.warnings[-1]
    world.check(done)
    again = deploy(request, world.target)
    assert (again.outcome, again.machine_type) == ("unchanged", "n1-standard-8")


def test_a_limit_on_predictions_is_waited_out_and_no_lack_of_machines(world: World) -> None:
    world.fresh("limited")
    words = "Quota exceeded for aiplatform.googleapis.com/online_prediction_dedicated_requests."
    respond, asked = world.service.respond, []

    def limit(request: Request) -> Answer:
        if ":predict" in request.path:
            asked.append(request)
            if len(asked) == 1:
                return json_answer({"error": {"code": 429, "message": words}}, 429)
        return respond(request)

    world.service.respond = limit
    machine = ServingConfig() if world.kind == "kserve" else ServingConfig("n1-standard-4")
    done = deploy(
        replace(world.request("2"), config=machine, fallbacks=(ServingConfig("n1-standard-8"),)), world.target
    )
    assert done.machine_type == machine.machine_type and not done.warnings
    world.check(done)


def test_out_of_stock_without_a_fallback_leaves_nothing(world: World) -> None:
    world.fresh("empty")
    if world.kind == "kserve":
        world.service.unschedulable = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    else:
        world.service.out_of_stock = {"n1-standard-2"}
    with pytest.raises(DeployRefused) as refused:
        if world.kind == "kserve":
            world.target._site.service._api.poll_s = 0.01
        deploy(world.request("2"), world.target)
    assert refused.value.code == "NO_CAPACITY"
    world.service.unschedulable, world.service.out_of_stock = "", set()
    found = world.target.versions("empty")
    assert [(v.version, v.traffic_percent) for v in found.versions] == [("1", 100)]


def test_a_container_that_never_gets_ready_is_quoted_and_taken_back(world: World) -> None:
    world.fresh("unready")
    world.service.unready = "loading the model\nOp type not registered 'MyOp'"
    with pytest.raises(DeployRefused, match="Op type not registered 'MyOp'") as refused:
        deploy(world.request("2"), world.target)
    assert refused.value.code == "CANNOT_SERVE"
    world.service.unready = ""
    found = world.target.versions("unready")
    assert [(v.version, v.traffic_percent) for v in found.versions] == [("1", 100)]
    world.check(deploy(world.request("2"), world.target)) if world.kind == "vertex" else None


def test_the_version_before_is_put_back_though_it_is_not_ready_now(world: World) -> None:
    if world.kind != "kserve":
        pytest.skip("only there one version takes the place of another")
    world.fresh("restarting")
    world.is_watched = False
    world.service.revisions["restarting"][-1] |= {"ready": False, "polls": 10_000}
    world.service.answer = lambda uri, instances: [0.0 for _ in instances]
    with pytest.raises(DeployRefused) as refused:
        deploy(world.request("2"), world.target)
    assert refused.value.code == "PROBE_FAILED"
    found = world.target.versions("restarting")
    assert [(v.version, v.traffic_percent) for v in found.versions] == [("1", 100)]


def test_a_request_that_is_rejected_leaves_nothing(world: World) -> None:
    world.fresh("rejected")
    ends = {"vertex": ":deployModel", "ai-platform": "/versions", "kserve": "/inferenceservices/rejected"}[world.kind]

    def reject(index: int, request: Request) -> Tampering | None:
        is_it = request.method in ("POST", "PUT") and request.path.endswith(ends) and "dryRun" not in request.query
        return Tampering(False, 400) if is_it else None

    world.tampering = reject
    with pytest.raises(DeployRefused, match="the service answered 400") as refused:
        deploy(world.request("2"), world.target)
    assert refused.value.code == "REJECTED_BY_SERVICE"
    world.tampering = lambda index, request: None
    found = world.target.versions("rejected")
    assert [(v.version, v.traffic_percent) for v in found.versions] == [("1", 100)]
    assert len(world.storage.names("bucket")) == 3
    done = deploy(world.request("2"), world.target)
    assert (done.outcome, dict(done.traffic), done.previous) == ("updated", {done.version: 100}, "1")


def test_a_version_that_answers_with_errors_gets_no_traffic(world: World) -> None:
    world.fresh("erring")
    world.tampering = lambda index, request: Tampering(False, 500) if ":predict" in request.path else None
    with pytest.raises(DeployRefused, match=r"Golden request 1 .* without traffic, got no answer: .* 500") as refused:
        deploy(world.request("2"), world.target)
    assert refused.value.code == "PROBE_FAILED" and "the version is gone" in refused.value.fix
    found = world.target.versions("erring")
    assert [(v.version, v.traffic_percent) for v in found.versions] == [("1", 100)]
    assert len(world.storage.names("bucket")) == 3


@pytest.mark.parametrize("status", [403, 404, 409])
def test_what_refuses_the_golden_requests_leaves_nothing(world: World, status: int) -> None:
    world.fresh("refusing")
    world.is_watched = False
    world.tampering = lambda index, request: Tampering(False, status) if ":predict" in request.path else None
    with pytest.raises(DeployRefused, match=str(status)):
        deploy(world.request("2"), world.target)
    assert_nothing_is_left(world)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"predictions": 3}', b'{"predictions": null}'])
def test_what_is_no_answer_leaves_nothing(world: World, body: bytes) -> None:
    world.fresh("babbling")
    world.is_watched = False
    respond = world.service.respond
    world.service.respond = lambda asked: Answer(200, {}, body) if ":predict" in asked.path else respond(asked)
    with pytest.raises(DeployRefused) as refused:
        deploy(world.request("2"), world.target)
    assert refused.value.code in ("PROBE_FAILED", "BAD_PREDICTIONS")
    assert_nothing_is_left(world)


def test_lone_values_of_two_outputs_leave_nothing(world: World) -> None:
    world.fresh("two")
    world.is_watched = False
    golden = [{**GOLDEN[0], "outputs": {"y": [2.0, 5.0], "z": [2.0, 5.0]}}]
    model = write_tiny_model(world.models / "two", "2", golden=golden, outputs={**Y, "z": Y["y"]})
    respond = world.service.respond
    lone = json_answer({"outputs": [2.0, 5.0], "predictions": [2.0, 5.0]})
    world.service.respond = lambda asked: lone if ":predict" in asked.path else respond(asked)
    with pytest.raises(DeployRefused, match="should have y, z") as refused:
        deploy(DeployRequest(str(model), "two", allow_signature_change=True), world.target)
    assert refused.value.code == "BAD_PREDICTIONS"
    assert_nothing_is_left(world)


def test_a_change_that_is_not_allowed_leaves_nothing(world: World) -> None:
    world.fresh("forbidden")
    world.is_watched = False
    state = {"vertex": ":mergeVersionAliases", "ai-platform": ":setDefault", "kserve": "/inferenceservices/forbidden"}

    def forbid(index: int, request: Request) -> Tampering | None:
        is_it = request.method in ("POST", "PUT") and request.path.endswith(state[world.kind])
        if not is_it or "dryRun" in request.query:
            return None
        world.tampering = lambda index, request: None
        return Tampering(False, 403)

    world.tampering = forbid
    with pytest.raises(DeployRefused) as refused:
        deploy(world.request("2"), world.target)
    assert refused.value.code == "NO_ACCESS"
    assert_nothing_is_left(world)


@pytest.mark.parametrize("status", [400, 403])
def test_a_version_that_is_live_stays_so_where_a_change_is_refused(world: World, status: int) -> None:
    world.fresh("kept")
    world.is_watched = False
    world.service.tamper = lambda request: Tampering(False, status) if request.method != "GET" else None
    with pytest.raises(DeployRefused, match=str(status)):
        deploy(replace(world.request("1"), labels=("gold",)), world.target)
    assert world.traffic() == {"1": 100}
    assert_nothing_is_left(world)


def test_what_cannot_be_taken_back_is_named(world: World) -> None:
    world.fresh("stuck")
    world.is_watched = False
    takes_back = {"vertex": ":undeployModel", "ai-platform": "/versions/v2", "kserve": "/inferenceservices/stuck"}

    def strike(index: int, request: Request) -> Tampering | None:
        if ":predict" in request.path:
            world.tampering = lambda index, request: (
                Tampering(False, 403) if request.path.endswith(takes_back[world.kind]) else None
            )
            return Tampering(False, 400)
        return None

    world.tampering = strike
    left = {
        "vertex": "undeploy version .*; remove endpoint .*; remove version .*@2",
        "ai-platform": "remove projects/.*/v2",
    }
    with pytest.raises(
        DeployRefused, match=f"Something of it is left: .* 403 .* Still to do: {left.get(world.kind, '')}"
    ) as refused:
        deploy(world.request("2"), world.target)
    assert "is gone" not in refused.value.fix


@pytest.mark.parametrize("then", ["deploy", "rollback"])
def test_traffic_that_cannot_be_given_back_is_said_with_both_ways_out(world: World, then: str) -> None:
    world.fresh("half")
    world.is_watched = False
    share = 50 if world.kind in SPLITTING else 100

    def lose(index: int, request: Request) -> Tampering | None:
        changes = request.method != "GET" and ":predict" not in request.path and "/b/bucket" not in request.path
        return Tampering(False, 403) if changes and world.traffic().get("2", 0) == share else None

    world.tampering = lose
    with pytest.raises(DeployRefused, match=rf"version 2 had {share} %.* of the traffic") as refused:
        deploy(world.request("2"), world.target)
    assert refused.value.code == "NO_ACCESS"
    assert "deploy again" in refused.value.fix and "to give version 1 all traffic" in refused.value.fix
    world.tampering = lambda index, request: None
    if then == "deploy":
        world.check(deploy(world.request("2"), world.target))
    else:
        world.target.rollback("half")
        assert {version: share for version, share in world.traffic().items() if share} == {"1": 100}


def test_the_way_back_stays_where_a_version_fails_under_traffic(world: World) -> None:
    world.fresh("back")
    world.is_watched = False
    deploy(world.request("2"), world.target)
    asked = []

    def fail_second(index: int, request: Request) -> Tampering | None:
        if ":predict" not in request.path:
            return None
        asked.append(request)
        return Tampering(False, 400) if len(asked) > 1 else None

    world.tampering = fail_second
    with pytest.raises(DeployRefused, match=r"asked with \d+ % of the traffic, got no answer"):
        deploy(world.request("3"), world.target)
    world.tampering = lambda index, request: None
    found = world.target.versions("back")
    assert (found.live, found.previous) == ("2", "1")
    assert world.target.rollback("back").version == "1"
