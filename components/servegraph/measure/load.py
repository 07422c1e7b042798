"""Asks a server on this machine over HTTP, on several connections at once, and takes the times."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from servegraph.errors import Refusal

_END = b"\r\n\r\n"
_FIX = "Measure again; where it stays so, ask `servegraph serve` the same: its log says why."
_LENGTH = b"content-length: "


@dataclass(frozen=True)
class Load:
    """What came of it: answers a second, and milliseconds from a request to its answer."""

    answers: int
    seconds: float
    times_ms: tuple[float, ...] = field(repr=False)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: float) -> float:
        """Return the time within which `percent` of the answers came."""
        index = min(len(self.times_ms) - 1, int(len(self.times_ms) * percent / 100))
        return self.times_ms[index]


def drive(port: int, target: str, body: bytes, *, connections: int, seconds: float) -> Load:
    """Ask the same again and again, each connection as soon as it has its answer.

    Raises:
        Refusal: an answer is not 200, or a connection breaks (code `LOAD_FAILED`).
    """
    head = f"POST {target} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
    return asyncio.run(_drive(port, head.encode() + body, connections, seconds))


async def _drive(port: int, request: bytes, connections: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    started_s = time.perf_counter()
    clients = [_Client(request, started_s + seconds) for _ in range(connections)]
    try:
        for client in clients:
            await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    except OSError as exc:
        raise Refusal(f"The server cannot be reached: {exc}", code="LOAD_FAILED", fix=_FIX) from exc
    await asyncio.gather(*(client.finished for client in clients))
    ended_s = time.perf_counter()
    times = sorted(time_ms for client in clients for time_ms in client.times_ms)
    return Load(len(times), ended_s - started_s, tuple(times))


class _Client(asyncio.Protocol):
    """One connection that asks until the time is up."""

    def __init__(self, request: bytes, until_s: float) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.times_ms: list[float] = []
        self._request = request
        self._until_s = until_s
        self._transport: Any = None
        self._received = b""
        self._wanted = -1
        self._asked_s = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._wanted < 0:
            end = self._received.find(_END)
            if end < 0:
                return
            if not self._received.startswith(b"HTTP/1.1 200"):
                self._fail(self._received.decode("utf-8", "replace")[:500])
                return
            at = self._received.find(_LENGTH) + len(_LENGTH)
            self._wanted = end + len(_END) + int(self._received[at : self._received.index(b"\r", at)])
        if len(self._received) < self._wanted:
            return
        now_s = time.perf_counter()
        self.times_ms.append((now_s - self._asked_s) * 1000)
        if now_s < self._until_s:
            self._ask()
        elif not self.finished.done():
            self.finished.set_result(None)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection was closed: {error}")

    def _ask(self) -> None:
        self._received = b""
        self._wanted = -1
        self._asked_s = time.perf_counter()
        self._transport.write(self._request)

    def _fail(self, why: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(
                Refusal(f"The server did not answer as it should: {why}", code="LOAD_FAILED", fix=_FIX)
            )
            self._transport.close()
