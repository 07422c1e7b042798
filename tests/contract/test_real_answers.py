"""Golden requests with real answers: behind the emulated service the prediction server loads what was uploaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.contract.life import live_through
from tests.emulators.gcs import FakeGcs
from tests.emulators.remote_places import FAKES, Emulated

from servegraph.serve.child import ServerProcess


class Servers:
    """Answers as a container does that loads the files at `AIP_STORAGE_URI`."""

    def __init__(self, storage: FakeGcs, root: Path, stack: ExitStack) -> None:
        self._storage, self._root, self._stack = storage, root, stack
        self._running: dict[str, ServerProcess] = {}

    def __call__(self, uri: str, instances: list[Any]) -> list[Any]:
        if uri not in self._running:
            self._running[uri] = self._start(uri)
        answer = self._running[uri].post("/v1/models/half:predict", {"instances": instances})
        assert answer.status == 200, answer
        return list(answer.document["predictions"])

    def _start(self, uri: str) -> ServerProcess:
        prefix = uri.removeprefix("gs://bucket/") + "/"
        root = self._root / str(len(self._running))
        for name in self._storage.names("bucket"):
            if name.startswith(prefix):
                path = root / "half" / "1" / name.removeprefix(prefix).removeprefix("1/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._storage.content("bucket", name))
        server = self._stack.enter_context(ServerProcess(root, options=("--no-probe",)))  # as on Vertex AI
        server.wait_until_available("half")
        return server


@pytest.fixture(params=["vertex", "ai-platform", "kserve"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Emulated, ExitStack]]:
    with ExitStack() as stack:
        service, storage = stack.enter_context(FAKES[request.param]()), stack.enter_context(FakeGcs())
        storage.make_bucket("bucket")
        service.answer = Servers(storage, tmp_path / "served", stack)
        # The first answer waits for a server to start, on a busy machine too.
        yield Emulated(request.param, service.url, storage.url, call_timeout_s=300.0), stack


@pytest.mark.slow
def test_the_life_of_a_model(place: tuple[Emulated, ExitStack], tmp_path: Path) -> None:
    """What is done on real projects with one switch: see tests/live."""
    emulated, stack = place
    live_through(emulated.open(stack), "half", tmp_path, splits=emulated.kind != "ai-platform")
