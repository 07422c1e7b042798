"""What answers at the address and is not the service: a proxy that nobody told us to trust, a port without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from tests.emulators.google_hosts import write_certificate
from tests.emulators.http_server import Answer, LoopbackServer

from servegraph.deploy_version.faults import Patience, Unreachable
from servegraph.deploy_version.targets.ai_platform_api import AiPlatformApi
from servegraph.deploy_version.targets.kserve_api import KserveApi
from servegraph.deploy_version.targets.vertex_api import VertexApi
from servegraph.errors import InputError, StorageError
from servegraph.storage.gcs import answering
from servegraph.storage.unreachable import REACH_S
from servegraph_pipelines.engines.kubeflow import KubeflowEngine

MODEL = "projects/p/locations/r/models/m"
CALLS: dict[str, Callable[[str, Callable[[], Patience]], object]] = {
    "vertex": lambda url, patience: VertexApi("r", url, patience=patience).read("models.get", {"name": MODEL}),
    "ai-platform": lambda url, patience: AiPlatformApi(None, url, patience=patience).read(
        "models.get", {"name": "projects/p/models/m"}
    ),
    "kserve": lambda url, patience: KserveApi("n", None, url, patience=patience).get("ConfigMap", "m"),
    "kfp": lambda url, patience: KubeflowEngine(url, patience=patience).experiment_id(),
}


@pytest.fixture(params=["a certificate of its own", "no TLS"])
def stranger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """An https address and what is to be said of it."""
    if request.param == "no TLS":
        with LoopbackServer(lambda asked: Answer()) as server:
            yield server.url.replace("http://", "https://"), "wrong version number in TLS"
        return
    write_certificate(tmp_path / "own.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with contextlib.suppress(OSError):
                        context.wrap_socket(connection, server_side=True).close()

        threading.Thread(target=accept, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", "self-signed certificate in TLS"


@pytest.mark.parametrize("region", ["evil.example?", "evil.example#", "us central1", "US", ""])
def test_no_region_leads_to_another_host(region: str) -> None:
    for api in (VertexApi, AiPlatformApi):
        with pytest.raises(InputError) as caught:
            api(region)
        assert caught.value.code == "BAD_REGION"


@pytest.mark.parametrize("service", CALLS)
def test_a_stranger_is_given_up_soon_with_what_is_odd(service: str, stranger: tuple[str, str]) -> None:
    url, said = stranger
    now_s = [0.0]

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    with pytest.raises(Unreachable) as caught:
        CALLS[service](url, lambda: Patience(sleep=sleep, clock=lambda: now_s[0]))
    assert now_s[0] <= REACH_S
    assert said in caught.value.message and "REQUESTS_CA_BUNDLE" in caught.value.fix


def test_storage_says_so_too(stranger: tuple[str, str]) -> None:
    url, said = stranger
    options = {"api_endpoint": url}
    client = storage.Client(project="p", credentials=AnonymousCredentials(), client_options=options)
    with pytest.raises(StorageError) as caught, answering("list", "gs://b/m"):
        list(client.list_blobs("b", retry=None))
    client.close()
    assert caught.value.code == "UNREACHABLE"
    assert said in caught.value.message and "REQUESTS_CA_BUNDLE" in caught.value.fix
