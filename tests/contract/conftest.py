"""What the tests of several remote targets begin with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.contract.world import World
from tests.emulators.gcs import FakeGcs
from tests.emulators.remote_places import FAKES, Emulated


@pytest.fixture(params=list(FAKES))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        service, storage = stack.enter_context(FAKES[request.param]()), stack.enter_context(FakeGcs())
        storage.make_bucket("bucket")
        target = Emulated(request.param, service.url, storage.url, 10.0, call_timeout_s=0.4).open(stack)
        here = World(request.param, service, storage, target, tmp_path)
        service.tamper = storage.tamper = here.tamper
        yield here
