"""One HTTP/1.1 connection: bytes in, requests to the app, answers out in their order.

An asyncio protocol straight over httptools (Node's parser). A general server such as uvicorn bounds neither headers,
nor the time a body takes to come, nor that in which an answer is read; and for each request it builds an ASGI scope, a
task and several messages, which a lone connection notices beside a small model (`benchmarks/serve.py` compares them).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

import httptools

from servegraph.errors import ServegraphError
from servegraph.serve import connection_errors
from servegraph.serve.edge import Edge
from servegraph.serve.http import Request, Response, error_response, head_of, too_large

_WANTED_HEADERS = frozenset((b"content-encoding", b"content-type", b"accept", b"x-request-id"))
_FRAMING_HEADERS = frozenset((b"content-length", b"transfer-encoding", b"expect"))
_MOST_PIPELINED = 8
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """A client's connection. All of it runs in the thread of the event loop."""

    def __init__(self, edge: Edge) -> None:
        """Wait for the transport."""
        self._edge = edge
        self._limits = edge.limits
        self._transport: Any = None
        self._parser: Any = None
        self._client = ""
        self._waiting: deque[tuple[Request | Response, bool]] = deque()  # requests, or answers settled already
        self._is_busy = False
        self._is_closing = False
        self._is_blocked = False
        self._deadline_s = 0.0
        self._begin()

    # asyncio's side

    def connection_made(self, transport: Any) -> None:
        """Start reading; with too many clients, say so and close."""
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._deadline_s = self._edge.now_s + self._limits.idle_timeout_s
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._edge.connections.add(self)
        if len(self._edge.connections) > self._limits.connections:
            self._fail(connection_errors.too_many_connections())

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget the client. What it asked is finished, and its answer dropped."""
        self._edge.connections.discard(self)
        self._release()
        self._drop_waiting()
        self._is_closing = True

    def eof_received(self) -> bool:
        """Keep the way back open for what is still to be answered."""
        if not self._is_busy and not self._waiting:
            return False
        self._is_closing = True
        return True

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        while data and not self._is_closing:
            data = self._parse(data)

    def _parse(self, data: bytes) -> bytes:
        """Parse `data` and return what is to be parsed again, after a request that asks for another protocol."""
        if self._in_headers:
            if not self._header_bytes:
                self._deadline_s = self._edge.now_s + self._limits.header_timeout_s
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            if self._asks_upgrade:
                return self._without_upgrade() + data[exc.args[0] :]
            self._is_closing = True  # CONNECT: answered, then closed
            if not self._is_busy and not self._waiting:
                self._transport.close()
        except httptools.HttpParserCallbackError as exc:
            self._fail(connection_errors.defect(exc.__context__))
            return b""
        except httptools.HttpParserError as exc:
            self._fail(connection_errors.not_http(exc))
            return b""
        if self._in_headers and self._header_bytes > self._limits.header_bytes:
            self._fail(connection_errors.headers_too_large())
        elif len(self._waiting) >= _MOST_PIPELINED:
            self._transport.pause_reading()
        return b""

    def _without_upgrade(self) -> bytes:
        """Begin anew, and return the head of the request as it is without the wish for another protocol.

        Java's client asks for h2c with every first request, those with a body too; httptools then leaves the body out.
        """
        line = b"%b %b HTTP/%b" % (self._parser.get_method(), self._target, self._parser.get_http_version().encode())
        headers = [b"%b: %b" % header for header in (*self._headers.items(), *self._framing)]
        self._begin()
        self._parser = httptools.HttpRequestParser(self)
        return b"\r\n".join((line, *headers, b"", b""))

    def pause_writing(self) -> None:
        """The client does not read: answer no more until it does, and not for ever."""
        self._is_blocked = True
        self._deadline_s = self._edge.now_s + self._limits.write_timeout_s
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has read."""
        self._is_blocked = False
        self._deadline_s = self._edge.now_s + self._limits.idle_timeout_s
        self._transport.resume_reading()
        self._next()

    # The parser's side

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._target += url
        self._header_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._header_size += len(name) + len(value)
        lower = name.lower()
        if lower in _FRAMING_HEADERS:
            self._framing.append((lower, value))
        if lower == b"content-length":
            self._length = int(value)  # the parser has checked that it is a number
        elif lower == b"expect":
            self._expects_continue = value.lower() == b"100-continue"
        elif lower in _WANTED_HEADERS:
            self._headers[lower] = value

    def on_headers_complete(self) -> None:
        """Decide whether the body is wanted."""
        self._in_headers = False
        self._deadline_s = self._edge.now_s + self._limits.body_timeout_s
        if self._parser.get_http_version() != "1.1":  # such a client would take "continue" for the answer
            self._expects_continue = False
        if self._header_size > self._limits.header_bytes:
            self._refuse(connection_errors.headers_too_large())
            self._keep_alive = False
        elif any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self._framing):
            self._refuse(connection_errors.transfer_coding())
        elif self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT":
            self._asks_upgrade = True
            return
        self._check_size(self._length, self._length)
        if self._refusal is None:
            if self._expects_continue:
                self._transport.write(_CONTINUE)
        elif self._expects_continue:  # the client sends no body before it has an answer: this one, and the last
            self._waiting.append((error_response(self._refusal), False))
            self._is_closing = True
            if not self._is_busy:
                self._next()
        elif self._length > self._limits.drained_bytes:
            self._keep_alive = False

    def on_body(self, chunk: bytes) -> None:
        """Take a part of the body, or drop it."""
        self._received += len(chunk)
        self._check_size(self._received, len(chunk))
        if self._refusal is None:
            self._chunks.append(chunk)
            self._edge.buffered_bytes += len(chunk)
        elif self._received > self._limits.drained_bytes:
            self._fail(self._refusal)

    def on_message_complete(self) -> None:
        """Hand the request on, after those before it."""
        if self._asks_upgrade or self._is_closing:
            return
        is_new = self._parser.get_http_version() == "1.1"  # one of 1.0 would have to be told that it stays open
        keep_alive = is_new and self._keep_alive and self._parser.should_keep_alive()
        chunks = self._chunks
        if self._refusal is not None:
            self._release()
            self._waiting.append((error_response(self._refusal), keep_alive))
        else:
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            request = Request(self._parser.get_method(), self._target, self._headers, body)
            self._waiting.append((request, keep_alive))
        self._begin()
        self._deadline_s = self._edge.now_s + self._limits.idle_timeout_s
        if not self._is_busy:
            self._next()

    # From requests to answers

    def _begin(self) -> None:
        """Be ready for a request."""
        self._in_headers = True
        self._header_bytes = 0  # as they come, with what else is in their packets
        self._header_size = 0  # of the headers alone
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._length = 0
        self._received = 0
        self._expects_continue = False
        self._asks_upgrade = False
        self._framing: list[tuple[bytes, bytes]] = []
        self._keep_alive = True
        self._refusal: ServegraphError | None = None

    def _check_size(self, body_bytes: int, more_bytes: int) -> None:
        if self._refusal is not None:
            return
        if body_bytes > self._limits.max_body_bytes:
            self._refuse(too_large(self._limits.max_body_bytes))
        elif self._edge.buffered_bytes + more_bytes > self._limits.buffered_bytes:
            self._refuse(connection_errors.too_much_held())

    def _refuse(self, error: ServegraphError) -> None:
        self._refusal = error
        self._release()

    def _drop_waiting(self) -> None:
        self._edge.buffered_bytes -= sum(len(entry.body) for entry, _ in self._waiting if isinstance(entry, Request))
        self._waiting.clear()

    def _release(self) -> None:
        """Give back what the unfinished body took of the common budget."""
        self._edge.buffered_bytes -= sum(map(len, self._chunks))
        self._chunks = []

    def _next(self) -> None:
        """Answer the requests that wait, one after the other, as far as it goes at once."""
        while self._waiting and not self._is_busy and not self._is_blocked:
            entry, keep_alive = self._waiting.popleft()
            if len(self._waiting) == _MOST_PIPELINED - 1:
                self._transport.resume_reading()
            if isinstance(entry, Response):
                self._send(Request(b"", b"", {}, b""), entry, keep_alive, self._edge.now_s)
                continue
            self._is_busy = True
            self._ask(entry, keep_alive)

    def _ask(self, request: Request, keep_alive: bool) -> None:
        started_s = time.perf_counter()
        held_bytes = len(request.body)

        def hold(more_bytes: int) -> None:
            nonlocal held_bytes
            if self._edge.buffered_bytes + more_bytes > self._limits.buffered_bytes:
                raise connection_errors.too_much_held()
            held_bytes += more_bytes
            self._edge.buffered_bytes += more_bytes

        def respond(response: Response) -> None:
            self._edge.buffered_bytes -= held_bytes
            self._is_busy = False
            self._send(request, response, keep_alive, started_s)
            if self._waiting:
                self._next()

        self._edge.app.handle(request._replace(hold=hold), respond)

    def _send(self, request: Request, response: Response, keep_alive: bool, started_s: float) -> None:
        edge = self._edge
        if edge.observe is not None and request.method:
            edge.observe(request, response, time.perf_counter() - started_s, self._client)
        if self._transport.is_closing():
            return
        keep_alive = keep_alive and not edge.is_draining and not (self._is_closing and not self._waiting)
        self._deadline_s = edge.now_s + self._limits.idle_timeout_s
        head = head_of(response, edge.date, keep_alive)
        self._transport.write(head if request.method == b"HEAD" else head + response.body)
        if not keep_alive:
            self._is_closing = True
            self._drop_waiting()
            self._transport.close()  # after what is written has been sent

    def _fail(self, error: ServegraphError) -> None:
        """Answer with `error` and close; what came is not to be trusted any further."""
        if self._transport.is_closing():
            return
        self._is_closing = True
        if not self._is_busy:  # else the answer that is due would be taken for this one
            self._transport.write(head_of(response := error_response(error), self._edge.date, False) + response.body)
        self._transport.close()

    # Time

    def expire(self, now_s: float) -> None:
        """End the connection if its time is up. While a request is worked on, its lane keeps the time."""
        if now_s < self._deadline_s or (self._is_busy and not self._is_blocked):
            return
        if self._is_blocked or self._transport.is_closing():
            self.abort()
        elif self._in_headers and not self._header_bytes:
            self._transport.close()
        else:
            self._fail(connection_errors.too_slow())

    def close_if_idle(self) -> None:
        """Close unless a request is being received or answered."""
        if not self._is_busy and not self._waiting and self._in_headers and not self._header_bytes:
            self._transport.close()

    def give_up(self) -> None:
        """Tell the client that no answer will come, if it waits for one and reads, and close."""
        if self._is_busy and not self._is_blocked and not self._transport.is_closing():
            stopped = error_response(connection_errors.stopped())
            self._transport.write(head_of(stopped, self._edge.date, False) + stopped.body)
            self._transport.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()
