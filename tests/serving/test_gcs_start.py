"""A server that starts from Cloud Storage: a real process, TensorFlow's own client, an emulator under Google's names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.gcs import FakeGcs
from tests.emulators.google_hosts import GoogleHosts
from tests.emulators.http_server import Request, Tampering
from tests.serving.test_loading import ask

from servegraph.serve.server import listen

MODELS = Path(__file__).parent / "models"
GRAPH = "m/people/saved_model.pb"


class Storage:
    """The emulator with models in it, and servers that are started from it."""

    def __init__(self, fake: FakeGcs, hosts: GoogleHosts, folder: Path) -> None:
        self.fake, self._hosts, self.folder = fake, hosts, folder
        folder.mkdir()

    def put(self, model: str, prefix: str) -> None:
        for file in (MODELS / model).rglob("*"):
            if file.is_file():
                self.fake.put("bucket", f"{prefix}/{file.relative_to(MODELS / model)}", file.read_bytes())

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "servegraph.serve", "--host", "127.0.0.1", *arguments],
            env={**os.environ, **self._hosts.environment, "TMPDIR": str(self.folder), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_as_vertex(self, uri: str, **environment: str) -> tuple[subprocess.Popen[str], int]:
        with listen("127.0.0.1", 0) as probe:
            port = probe.getsockname()[1]
        routes = {"AIP_HTTP_PORT": str(port), "AIP_HEALTH_ROUTE": "/alive", "AIP_PREDICT_ROUTE": "/ask"}
        return self.start(AIP_STORAGE_URI=uri, **routes, **environment), port

    def when_read(self, name: str, act: Callable[[], Any], *, status: int | None = None, after: bool = False) -> None:
        """Let something happen once, when the bytes of an object are asked for."""

        def tamper(request: Request) -> Tampering | None:
            if name.replace("/", "%2F") not in request.path or "/storage/v1" in request.path:
                return None
            self.fake.tamper = lambda _: None
            return Tampering(after=after, status=status, act=act)

        self.fake.tamper = tamper


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with FakeGcs() as fake, GoogleHosts(fake.url, tmp_path) as hosts:
        found = Storage(fake, hosts, tmp_path / "temporary")
        found.put("people-1", "m/people")
        yield found


def eventually(happened: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def is_healthy(process: subprocess.Popen[str], port: int) -> bool:
    assert process.poll() is None, process.stderr.read() if process.stderr else ""
    try:
        return ask(port, "GET", "/alive")[0] == 200
    except OSError:
        return False


def refusal(storage: Storage, process: subprocess.Popen[str]) -> str:
    """The only line that a server which does not start says of it; nothing of it stays."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error ")]
    assert list(storage.folder.iterdir()) == []
    return line


def test_a_cold_start_as_vertex_gives_it(storage: Storage) -> None:
    storage.fake.put("bucket", "m/people/", b"")  # the console makes such markers of folders
    settings = {"format": 1, "batch_rows": 8, "onednn": False, "intra_op_threads": 1, "inter_op_threads": 1}
    storage.fake.put("bucket", "m/people/assets.extra/serving_settings.json", json.dumps(settings).encode())
    process, port = storage.start_as_vertex("gs://bucket/m/people")
    try:
        eventually(lambda: is_healthy(process, port))
        request = {"instances": [{"age": 25, "job": "clerk"}], "parameters": {}}
        answer = {"predictions": [{"classes": "<=50K", "probabilities": [0.75, 0.25]}]}
        assert ask(port, "POST", "/ask", request) == (200, answer)
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "as measured for the model: {'TF_ENABLE_ONEDNN_OPTS': '0'" in errors
    assert list(storage.folder.iterdir()) == []


def test_a_root_on_cloud_storage(storage: Storage) -> None:
    storage.put("people-2", "root/people/7")
    process = storage.start("gs://bucket/root/", "--port", "0")
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "people version 7: loaded" in line:
                break
        else:
            raise AssertionError("it did not load")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_nothing_there(storage: Storage) -> None:
    for uri in ("gs://bucket/m/nobody", "gs://no-bucket/m"):
        line = refusal(storage, storage.start_as_vertex(uri)[0])
        assert line.startswith("error [NOT_FOUND]")
        assert uri in line


def test_no_permission(storage: Storage) -> None:
    storage.when_read(GRAPH, lambda: None, status=403)
    assert refusal(storage, storage.start_as_vertex("gs://bucket/m/people")[0]).startswith("error [NO_ACCESS]")
    storage.fake.tamper = lambda request: Tampering(after=False, status=403)
    assert refusal(storage, storage.start_as_vertex("gs://bucket/m/people")[0]).startswith("error [NO_ACCESS]")


def test_a_service_that_does_not_answer(storage: Storage) -> None:
    storage.fake.tamper = lambda request: Tampering(after=False, status=503)
    quick = {"GCS_RETRY_CONFIG_MAX_RETRIES": "2", "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "1000"}
    line = refusal(storage, storage.start_as_vertex("gs://bucket/m/people", **quick)[0])
    assert line.startswith("error [UNREACHABLE]")
    assert "503" in line


def test_a_host_that_is_not_found(storage: Storage) -> None:
    line = refusal(storage, storage.start("gs://bucket/m/people", "--port", "0", https_proxy="http://proxy.invalid:1"))
    assert line.startswith("error [UNREACHABLE]")
    assert "libcurl code" in line


def test_a_model_that_is_overwritten_while_it_is_fetched(storage: Storage) -> None:
    # The graph has been read when the variables are: one version's graph with the other's variables.
    storage.when_read("variables.index", lambda: storage.put("people-2", "m/people"))
    line = refusal(storage, storage.start_as_vertex("gs://bucket/m/people")[0])
    assert line.startswith("error [CHANGED]")
    assert "saved_model.pb" in line


def test_an_object_that_goes_while_it_is_fetched(storage: Storage) -> None:
    storage.when_read(GRAPH, lambda: storage.fake.store.bucket("bucket").pop("m/people/variables/variables.index"))
    line = refusal(storage, storage.start_as_vertex("gs://bucket/m/people")[0])
    assert line.startswith(("error [NOT_FOUND]", "error [CHANGED]"))


def test_a_transfer_that_breaks_is_taken_up_again(storage: Storage) -> None:
    storage.when_read("variables.data", lambda: None, after=True)
    process, port = storage.start_as_vertex("gs://bucket/m/people")
    try:
        eventually(lambda: is_healthy(process, port))
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_fetches(storage: Storage, number: int) -> None:
    asked: list[Request] = []

    def stall(request: Request) -> Tampering:
        asked.append(request)
        return Tampering(after=False, stalls=True)

    storage.fake.tamper = stall
    # A shell's background jobs ignore SIGINT, and so would the server that it is to end here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process, port = storage.start_as_vertex("gs://bucket/m/people")
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        eventually(lambda: asked)
        # A liveness probe must not end a server whose model takes minutes to come; nor may it get traffic.
        assert ask(port, "GET", "/healthz")[0] == 200
        error = {"error": "The models are still being fetched or looked up."}
        assert ask(port, "GET", "/alive") == (503, error)
        assert ask(port, "POST", "/ask", {"instances": [1]})[0] == 503
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in errors) == (0, False), errors
    assert list(storage.folder.iterdir()) == []
