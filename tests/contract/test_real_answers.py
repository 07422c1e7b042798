"""Golden requests with real answers: behind the emulated service the prediction server loads what was uploaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.gcs import FakeGcs
from tests.emulators.remote_places import FAKES, Emulated

from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.errors import DeployRefused
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.serve.child import ServerProcess

HALF = Path("tests/serving/models/half").absolute()


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
        server = self._stack.enter_context(ServerProcess(root))
        server.wait_until_available("half")
        return server


@pytest.fixture(params=["vertex", "ai-platform", "kserve"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Emulated, ExitStack]]:
    with ExitStack() as stack:
        service, storage = stack.enter_context(FAKES[request.param]()), stack.enter_context(FakeGcs())
        storage.make_bucket("bucket")
        service.answer = Servers(storage, tmp_path / "served", stack)
        yield Emulated(request.param, service.url, storage.url), stack


def half_plus_two(directory: Path, answers: list[float]) -> str:
    shutil.copytree(HALF, directory)
    (directory / "assets.extra").mkdir(exist_ok=True)
    golden = {"signature_name": "serving_default", "inputs": {"x": [1.0, 5.0]}, "outputs": {"y": answers}}
    (directory / GOLDEN_FILE).write_text(json.dumps(golden))
    return str(directory)


@pytest.mark.slow
def test_right_answers_go_live_and_wrong_ones_do_not(place: tuple[Emulated, ExitStack], tmp_path: Path) -> None:
    emulated, stack = place
    done = deploy(DeployRequest(half_plus_two(tmp_path / "right", [2.5, 4.5]), "half"), emulated.open(stack))
    assert (done.outcome, dict(done.traffic)) == ("created", {"1": 100})
    with pytest.raises(DeployRefused, match=r"output 'y'\[1\]: expected 4\.6, got 4\.5") as refused:
        deploy(DeployRequest(half_plus_two(tmp_path / "wrong", [2.5, 4.6]), "half"), emulated.open(stack))
    assert refused.value.code == "PROBE_FAILED"
    assert emulated.open(stack).versions("half").live == "1"
