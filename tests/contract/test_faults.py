"""A deploy that is killed, cut off or refused at any request: run again, there is one deployment and the right traffic.

A dozen of the requests that change something are struck, each in another way; with `-m sweep` every single request, in
every way.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.world import World, in_a_process
from tests.emulators.http_server import Request, Tampering

from servegraph.deploy_version.deploy import deploy
from servegraph.errors import DeployRefused, StorageError


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
