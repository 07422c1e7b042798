"""A request that ended without its answer: the next one gets its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from tests.emulators.http_server import Answer, LoopbackServer, Request

from servegraph.deploy_version.google_http import Connections


@pytest.mark.parametrize("way", ["timeout", "interrupt"])
def test_a_late_answer_is_not_that_of_the_next_request(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer = threading.Event()

    def respond(request: Request) -> Answer:
        if request.path == "/first":
            may_answer.wait(10)
        return Answer(body=request.path.encode())

    with LoopbackServer(respond) as server:
        connections = Connections(timeout=1.0)
        assert connections.request(f"{server.url}/before")[1] == b"/before"
        if way == "timeout":
            with pytest.raises(TimeoutError):
                connections.request(f"{server.url}/first")
        else:
            strike_when_asked(connections, monkeypatch)
            with pytest.raises(KeyboardInterrupt):
                connections.request(f"{server.url}/first")
        may_answer.set()
        assert connections.request(f"{server.url}/second", "POST", body=b"")[1] == b"/second"
        assert [call.request.path for call in server.calls].count("/second") == 1
        connections.close()


def strike_when_asked(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an interrupt come once, when a request has been sent and its answer is waited for."""
    (connection,) = connections.connections.values()
    get: Callable[[], object] = connection.getresponse

    def once() -> object:
        monkeypatch.setattr(connection, "getresponse", get)
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "getresponse", once)
