"""The access log: one JSON object a line for every answer, written beside the event loop."""

from __future__ import annotations

import json
import sys
import threading
from datetime import datetime, timezone
from queue import SimpleQueue
from typing import Any, TextIO

from servegraph.serve.http import Request, Response

_MOST_WAITING = 10_000


class AccessLog:
    """Writes lines in a thread of its own: who reads the log slowly loses lines, and holds up no answer."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to `stream`, standard error if none is given."""
        self._stream = stream or sys.stderr
        self._lines: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._lost = 0
        self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._thread.start()

    def observe(self, request: Request, response: Response, seconds: float, client: str) -> None:
        """Note one answer. Bodies are never logged."""
        if self._lines.qsize() >= _MOST_WAITING:
            self._lost += 1
            return
        route = response.route
        line: dict[str, Any] = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "client": client,
            "method": request.method.decode("latin-1"),
            "path": request.target.decode("latin-1")[:512],
            "status": response.status,
            "ms": round(seconds * 1000, 3),
            "bytes_in": len(request.body),
            "bytes_out": len(response.body),
        }
        if route is not None and route.name is not None:
            line["model"] = route.name
        if b"x-request-id" in request.headers:
            line["request_id"] = request.headers[b"x-request-id"].decode("latin-1")[:128]
        if self._lost:
            line["lost_lines"], self._lost = self._lost, 0
        self._lines.put(line)

    def close(self) -> None:
        """Write what waits, and end."""
        self._lines.put(None)
        self._thread.join(5)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(json.dumps(line) + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # nobody reads any more
                return
