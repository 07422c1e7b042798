"""A remote service with its storage, whose requests can be struck, and version 1 live there."""

from __future__ import annotations

import copy
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.emulators.gcs import FakeGcs
from tests.emulators.http_server import Request, Tampering
from tests.emulators.remote_places import Emulated, deploy_and_exit
from tests.tiny_models import write_tiny_model

from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest, Outcome
from servegraph.deploy_version.targets.remote_target import RemoteTarget

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


def in_a_process(world: World, content: str) -> Any:
    report = world.models / "report.txt"
    return FORKS.Process(target=deploy_and_exit, args=(world.place, world.request(content), report))


def assert_nothing_is_left(world: World) -> None:
    """Of version 2: version 1 has all traffic, and its files are the only ones."""
    found = world.target.versions(world.name)
    assert [(v.version, v.traffic_percent) for v in found.versions] == [("1", 100)]
    assert len([n for n in world.storage.names("bucket") if n.startswith(f"models/{world.name}/")]) == 3
    if world.kind == "vertex":
        assert [list(versions) for versions in world.service.models.values()] == [["1"]]
        assert [name.split("/")[-1] for name in world.service.endpoints] == [world.name]


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
