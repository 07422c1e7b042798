"""What the connections of a server share: limits, the memory of their bodies, the time, and who hears of answers."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from servegraph.serve.http import Request, Respond, Response

if TYPE_CHECKING:
    from servegraph.serve.connection import Connection

MOST_CONNECTIONS = 4096
_SWEEP_INTERVAL_S = 1.0


@dataclass(frozen=True)
class ConnectionLimits:
    """What one client may take: bytes of headers and body, seconds of each state of its connection.

    Bodies of all clients together take at most `buffered_bytes`. A body above its limit is read to its end and dropped,
    so that the client gets to read the answer; above `drained_bytes` the connection is closed instead.
    """

    max_body_bytes: int
    header_bytes: int = 32 << 10
    buffered_bytes: int = 512 << 20
    drained_bytes: int = 128 << 20
    connections: int = MOST_CONNECTIONS
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0  # above the 60 s that load balancers keep a connection


class Handler(Protocol):
    """What a connection needs of the app."""

    def handle(self, request: Request, respond: Respond) -> None:
        """Call `respond` once, now or later in this thread."""


Observer = Callable[[Request, Response, float, str], None]


class Edge:
    """What the connections of a server share. `observe` is told of every answer: request, answer, seconds, client."""

    def __init__(self, app: Handler, limits: ConnectionLimits, observe: Observer | None = None) -> None:
        """Nothing runs before `start`."""
        self.app = app
        self.limits = limits
        self.observe = observe
        self.connections: set[Connection] = set()
        self.buffered_bytes = 0
        self.is_draining = False
        self.now_s = 0.0
        self.date = b""
        self._sweeper: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Keep the date, and end what has taken too long, once a second from now on."""
        loop = asyncio.get_running_loop()
        self.now_s = loop.time()
        self.date = b"date: " + email.utils.formatdate(time.time(), usegmt=True).encode() + b"\r\n"
        for connection in list(self.connections):
            connection.expire(self.now_s)
        self._sweeper = loop.call_later(_SWEEP_INTERVAL_S, self.start)

    async def drain(self, timeout_s: float) -> None:
        """Let every request that has begun be answered, for at most `timeout_s`, then refuse what is left with 503."""
        self.is_draining = True
        deadline_s = time.monotonic() + timeout_s
        while self.connections and time.monotonic() < deadline_s:
            for connection in list(self.connections):
                connection.close_if_idle()
            await asyncio.sleep(0.05)
        for connection in list(self.connections):
            connection.give_up()
        if self._sweeper is not None:
            self._sweeper.cancel()
