"""A request that ended without its answer: the next one gets its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from tests.emulators.http_server import Answer, LoopbackServer, Request

from servegraph.deploy_version.google_http import Connections


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt, where a shell that started this beside other work had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("way", ["timeout", "interrupt"])
def test_a_late_answer_is_not_that_of_the_next_request(way: str) -> None:
    may_answer = threading.Event()

    def respond(request: Request) -> Answer:
        if request.path == "/first":
            if way == "interrupt":
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # which waits for this answer
            may_answer.wait(10)
        return Answer(body=request.path.encode())

    with LoopbackServer(respond) as server:
        connections = Connections(timeout=1.0)
        assert connections.request(f"{server.url}/before")[1] == b"/before"
        with pytest.raises(TimeoutError if way == "timeout" else KeyboardInterrupt):
            connections.request(f"{server.url}/first")
        may_answer.set()
        assert connections.request(f"{server.url}/second", "POST", body=b"")[1] == b"/second"
        assert [call.request.path for call in server.calls].count("/second") == 1
        connections.close()
