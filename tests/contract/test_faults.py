"""A deploy that is killed, cut off or refused at any request: run again, there is one deployment and the right traffic.

A dozen of the requests that change something are struck, each in another way; with `-m sweep` every single request, in
every way.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.gcs import FakeGcs
from tests.emulators.http_server import Answer, LoopbackServer, Request, Tampering, json_answer
from tests.emulators.remote_places import FAKES, Emulated, deploy_and_exit
from tests.tiny_models import Y, write_tiny_model

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.plan import DeployRequest, Outcome, ServiceOptions
from servegraph.deploy_version.targets.remote_target import RemoteTarget
from servegraph.errors import DeployRefused, InputError, StorageError
from servegraph.serve.state import ServingConfig

GOLDEN = [{"signature_name": "serving_default", "inputs": {"x": [1.0, 2.5]}, "outputs": {"y": [2.0, 5.0]}}]
SPLITTING = frozenset({"vertex", "kserve"})
STATE = ("models", "versions", "default", "endpoints", "objects", "revisions", "operations")  # of the services
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.emulators.remote_places"])


@dataclass
class World:
    """A service and its storage, and what happens to their requests."""

    kind: str
    service: Any
    storage: FakeGcs
    target: RemoteTarget
    models: Path
    tampering: Callable[[int, Request], Tampering | None] = lambda index, request: None
    seen: list[Request] = field(default_factory=list)
    name: str = ""
    is_watched: bool = False
    new_share: int = 0  # that version 2 was last seen with
    wrong: list[str] = field(default_factory=list)
    saved: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def place(self) -> Emulated:
        return Emulated(self.kind, self.service.url, self.storage.url, lock_timeout_s=10.0)

    def tamper(self, request: Request) -> Tampering | None:
        with self.lock:
            self.seen.append(request)
            index = len(self.seen) - 1
            if self.is_watched:
                self.watch(request)
        return self.tampering(index, request)

    def watch(self, request: Request) -> None:
        """Version 1 has all that version 2 has not, and version 2 what a step gave it, more from step to step."""
        traffic = self.traffic()
        share = traffic.get("2", 0)
        steps = (0, 50, 100) if self.kind in SPLITTING else (0, 100)
        if traffic.get("1", 0) + share != 100 or share not in steps or share < self.new_share:
            self.wrong.append(f"{traffic} after {self.new_share} % at {request.method} {request.path}")
        self.new_share = share

    def traffic(self) -> dict[str, int]:
        return dict(self.service.running(self.name))

    def request(self, content: str) -> DeployRequest:
        model = self.models / content
        if not model.exists():
            write_tiny_model(model, content, golden=GOLDEN)
        steps = (50, 100) if self.kind in SPLITTING else ()
        return DeployRequest(str(model), self.name, traffic_steps=steps)

    def fresh(self, name: str) -> None:
        """Begin with version 1 live under another name."""
        self.tampering, self.is_watched, self.name = lambda index, request: None, False, name
        deploy(self.request("1"), self.target)
        self.saved = {key: copy.deepcopy(getattr(self.service, key)) for key in STATE if hasattr(self.service, key)}
        self.saved["buckets"] = copy.deepcopy(self.storage.store.buckets)
        self.watched()

    def again(self) -> None:
        """Begin once more as `fresh` left it."""
        self.tampering, self.is_watched = lambda index, request: None, False
        saved = copy.deepcopy(self.saved)
        self.storage.store.buckets = saved.pop("buckets")
        vars(self.service).update(saved)
        self.service.calls.clear()
        self.storage.calls.clear()
        self.watched()

    def watched(self) -> None:
        self.seen.clear()
        self.new_share, self.is_watched = 0, True

    def check(self, done: Outcome) -> None:
        """Version 2 is live, once; version 1 is there; nothing else is left."""
        self.is_watched = False
        assert not self.wrong, self.wrong
        assert (done.version, dict(done.traffic), done.previous) == ("2", {"2": 100}, "1")
        assert {version: share for version, share in self.traffic().items() if share} == {"2": 100}
        found = self.target.versions(self.name)
        assert [(v.version, v.traffic_percent) for v in found.versions] == [("2", 100), ("1", 0)]
        digests = {version.digest.replace(":", "-") for version in found.versions}
        files = [name.split("/") for name in self.storage.names("bucket") if name.startswith(f"models/{self.name}/")]
        assert {parts[2] for parts in files} == digests, files
        assert len(files) == 2 * 3
        self.check_orphans()

    def check_orphans(self) -> None:
        if self.kind == "vertex":
            (versions,) = (v for n, v in self.service.models.items() if n.endswith(f"/{self.name}"))
            assert sorted(versions) == ["1", "2"]
            assert not [e for e in self.service.endpoints.values() if e["displayName"].endswith("-probe")]
        if self.kind == "ai-platform":
            assert len([name for name in self.service.versions if f"/{self.name}/" in name]) == 2
        if self.kind == "kserve":
            here = {kind for kind, name in self.service.objects if name.startswith(self.name)}
            assert here == {"InferenceService", "ConfigMap"} and len(self.service.objects) == 2 * len(self.names())

    def names(self) -> set[str]:
        """All names that anything was deployed under."""
        return {name.split("/")[1] for name in self.storage.names("bucket")}


@pytest.fixture(params=list(FAKES))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        service, storage = stack.enter_context(FAKES[request.param]()), stack.enter_context(FakeGcs())
        storage.make_bucket("bucket")
        target = Emulated(request.param, service.url, storage.url, 10.0, call_timeout_s=0.4).open(stack)
        here = World(request.param, service, storage, target, tmp_path)
        service.tamper = storage.tamper = here.tamper
        yield here


@dataclass(frozen=True)
class Way:
    """How a request is tampered with: an HTTP status, a reset (None), no answer at all, or the end of the client."""

    status: int | None
    after: bool
    stalls: bool = False


KILLS = (Way(None, False), Way(None, True))
FAULTS = (
    Way(503, False),
    Way(503, True),
    Way(429, False),
    Way(None, False),
    Way(None, True),
    Way(None, True, stalls=True),
)


EXTENTS = pytest.mark.parametrize(
    "extent", [pytest.param("some", marks=pytest.mark.slow), pytest.param("all", marks=pytest.mark.sweep)]
)


def points(world: World, ways: tuple[Way, ...], extent: str) -> list[tuple[int, Way]]:
    """What to sweep: requests by their place in a deploy that nothing happens to, and the way."""
    world.fresh("swept")
    world.check(deploy(world.request("2"), world.target))
    everything = range(len(world.seen))
    if extent == "all":
        chosen = [(index, way) for index in everything for way in ways]
    else:
        changing = [index for index in everything if world.seen[index].method != "GET"]
        chosen = [(index, ways[turn % len(ways)]) for turn, index in enumerate(changing[:: len(changing) // 12 or 1])]
    print(f"{world.kind}: {len(chosen)} points are swept, of {len(everything)} requests")
    return chosen


def in_a_process(world: World, content: str) -> Any:
    report = world.models / "report.txt"
    return FORKS.Process(target=deploy_and_exit, args=(world.place, world.request(content), report))


@EXTENTS
def test_killed_at_any_request_and_run_again(world: World, extent: str) -> None:
    for point, way in points(world, KILLS, extent):
        world.again()
        child = in_a_process(world, "2")

        def kill(index: int, request: Request, point: int = point, way: Way = way, child: Any = child) -> Any:
            def act() -> None:
                os.kill(child.pid, signal.SIGKILL)

            return Tampering(way.after, act=act) if index == point else None

        world.tampering = kill
        child.start()
        child.join(60)
        assert child.exitcode in (-signal.SIGKILL, 0), (point, child.exitcode)  # 0: it took fewer requests
        world.tampering = lambda index, request: None
        world.check(deploy(world.request("2"), world.target))


@EXTENTS
def test_a_fault_at_any_request_is_waited_out(world: World, extent: str) -> None:
    for point, way in points(world, FAULTS, extent):
        world.again()
        fault = Tampering(way.after, way.status, stalls=way.stalls)
        world.tampering = lambda index, request, point=point, fault=fault: fault if index == point else None
        world.check(deploy(world.request("2"), world.target))


def test_a_service_that_stays_away_is_given_up(world: World) -> None:
    world.fresh("away")
    world.is_watched = False
    service = world.service
    service.tamper = lambda request: Tampering(False, 503)
    with pytest.raises(DeployRefused) as gone:
        deploy(world.request("2"), world.target)
    assert gone.value.code == "SERVICE_UNAVAILABLE"
    service.tamper = world.tamper
    assert world.traffic() == {"1": 100}
    world.check(deploy(world.request("2"), world.target))


def test_two_at_once_make_one_deployment(world: World) -> None:
    world.fresh("twice")
    world.is_watched = False
    children = [in_a_process(world, "2") for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0], (world.models / "report.txt").read_text()
    world.check(deploy(world.request("2"), world.target))


def test_who_holds_the_lock_is_said(world: World, tmp_path: Path) -> None:
    world.fresh("locked")
    with ExitStack() as stack:
        world.storage.put("bucket", "models/locked/lock.json", b'{"pid": 7, "host": "elsewhere", "since": "noon"}')
        impatient = replace(world.place, lock_timeout_s=0.2).open(stack)
        with pytest.raises(DeployRefused, match="process 7 on elsewhere since noon") as held:
            deploy(world.request("2"), impatient)
        assert held.value.code == "LOCKED"
    # Nobody renews it: after its time it is taken.
    world.check(deploy(world.request("2"), world.target))


def assert_nothing_is_left(world: World) -> None:
    """Of version 2: version 1 has all traffic, and its files are the only ones."""
    found = world.target.versions(world.name)
    assert [(v.version, v.traffic_percent) for v in found.versions] == [("1", 100)]
    assert len([n for n in world.storage.names("bucket") if n.startswith(f"models/{world.name}/")]) == 3
    if world.kind == "vertex":
        assert [list(versions) for versions in world.service.models.values()] == [["1"]]
        assert [name.split("/")[-1] for name in world.service.endpoints] == [world.name]


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
    assert refused.value.code == "PROBE_FAILED"
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
    ):
        deploy(world.request("2"), world.target)


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


def test_a_removal_that_is_cut_off_at_its_files_is_taken_up_again(world: World) -> None:
    world.fresh("removed")
    world.is_watched = False
    world.storage.tamper = lambda request: (
        Tampering(False, 403) if request.method == "DELETE" and "lock.json" not in request.path else None
    )
    with pytest.raises(StorageError):
        world.target.undeploy("removed")
    assert len(world.storage.names("bucket")) == 3
    world.storage.tamper = lambda request: None
    assert world.target.undeploy("removed").outcome == "removed"
    assert world.storage.names("bucket") == []
    assert world.target.undeploy("removed").outcome == "unchanged"


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


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


assert LoopbackServer  # its `tamper` is what the worlds above set
