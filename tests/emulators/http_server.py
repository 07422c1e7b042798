"""A loopback HTTP server for emulators: whole requests in, whole answers out, a log of both."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

STALL_S = 30.0  # longer than any client of a test waits
Self = TypeVar("Self", bound="LoopbackServer")


@dataclass(frozen=True)
class Request:
    """One request; `path` is as it was sent, percent-encoded."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message
    body: bytes

    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body or b"{}")
        return document


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Call:
    """One request with its answer."""

    request: Request
    answer: Answer

    def __str__(self) -> str:
        return f"{self.request.method} {self.request.path} {self.answer.status}"


@dataclass(frozen=True)
class Tampering:
    """What goes wrong with a request: before it is handled, or after, when it has had its effect.

    `act` is called then; it may end the client. `status` is answered instead; without one the connection is reset,
    or, where it `stalls`, left without an answer until the client gives up.
    """

    after: bool
    status: int | None = None
    act: Callable[[], None] | None = None
    stalls: bool = False


def json_answer(document: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(document).encode())


class LoopbackServer(ThreadingHTTPServer):
    """A context manager that answers in threads; a defect in `respond` fails the test that used it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, respond: Callable[[Request], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.respond = respond
        self.calls: list[Call] = []
        self.defects: list[Exception] = []
        self.tamper: Callable[[Request], Tampering | None] = lambda request: None

    def shutdown_request(self, request: Any) -> None:
        """Only close: a connection that is to be reset must not be ended in order first."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no defect: tests end some on purpose."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def __enter__(self: Self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()
        if any(call.answer.status >= 400 for call in self.calls):
            # Clients drop failed answers unread. Their sockets are collected here, not in some later test.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
        if self.defects:
            raise self.defects[0]


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else headers and body wait for each other
    wbufsize = -1

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        request = Request(self.command, url.path, query, self.headers, b"".join(self._body()))
        tampering = self.server.tamper(request)
        if tampering and not tampering.after:
            self._spoil(tampering)
            return
        try:
            answer = self.server.respond(request)
        except Exception as defect:
            self.server.defects.append(defect)
            answer = json_answer({"error": {"code": 501, "message": f"The emulator failed: {defect!r}"}}, 501)
        self.server.calls.append(Call(request, answer))
        if tampering:
            self._spoil(tampering)
        else:
            self._send(answer)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr: `calls` is the log."""

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _spoil(self, tampering: Tampering) -> None:
        if tampering.act:
            tampering.act()
        if tampering.status:
            message = "Injected by the test."
            self._send(json_answer({"error": {"code": tampering.status, "message": message}}, tampering.status))
            return
        if tampering.stalls:
            self.connection.settimeout(STALL_S)
            with contextlib.suppress(OSError):
                self.connection.recv(1)  # returns when the client hangs up
        else:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.wfile.flush()
