"""Routes and statuses of TF Serving's REST API as a raw ASGI application: the only place that knows HTTP.

Routes after `http_rest_api_util.cc`, statuses after `http_server.cc` and `response_code_enum.h` in
tensorflow/serving.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

from servegraph.errors import RequestError, ServegraphError
from servegraph.serve.metadata import metadata_json, status_json
from servegraph.serve.repository import Repository
from servegraph.serve.server import DEFAULT_MAX_BODY_BYTES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "BODY_TOO_LARGE": 413,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

_ROUTE = re.compile(
    r"/v1/models(?:/(?P<name>[^/:]+)(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:]+))?"
    r"(?:(?P<metadata>/metadata)|:(?P<verb>predict|classify|regress))?)?",
    re.IGNORECASE,
)
_log = logging.getLogger(__name__)


class Response(NamedTuple):
    """What is sent back; `headers` beyond content type and length."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class App:
    """The ASGI application over a repository of models."""

    def __init__(self, repository: Repository, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES) -> None:
        """Answer for the models of `repository`; larger bodies are refused with 413."""
        self._repository = repository
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever goes wrong is answered too."""
        try:
            response = await self._answer(scope, receive)
        except ServegraphError as exc:
            response = _error_response(exc)
        except Exception as exc:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            response = Response(500, _error_body(f"{type(exc).__name__}: {exc}"))
        if response is None:
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(response.body)).encode()),
            *response.headers,
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        route = _ROUTE.fullmatch(scope["path"].rstrip("/"))
        if route is None:
            raise RequestError(
                f"Malformed request: {scope['method']} {scope['path']}.",
                code="NOT_FOUND",
                fix="Routes: /v1/models, /v1/models/NAME[/versions/N|/labels/L][/metadata], …:predict.",
            )
        verb = route["verb"]
        allowed = "POST" if verb else "GET"
        if scope["method"] != allowed:
            raise RequestError(
                f"{scope['path']} takes {allowed}, not {scope['method']}.",
                code="METHOD_NOT_ALLOWED",
                fix=allowed,
            )
        if verb is None:
            return Response(200, _json(self._describe(route)))
        if verb.lower() != "predict":
            raise RequestError(
                f":{verb.lower()} is not served here.",
                code="UNIMPLEMENTED",
                fix="Use :predict on the same signature.",
            )
        body = await self._read_body(scope, receive)
        if body is None:
            return None
        served = self._repository.served(route["name"])
        model = served.find(_number(route["version"]), route["label"])
        # Decoding and encoding run in the worker too: the event loop only moves bytes, whatever their amount.
        answer = await asyncio.get_running_loop().run_in_executor(model.worker, model.predict, body)
        return Response(200, answer)

    def _describe(self, route: re.Match[str]) -> Mapping[str, Any]:
        name, version, label = route["name"], _number(route["version"]), route["label"]
        if name is None:
            return {"models": [{"name": known} for known in self._repository.names()]}
        served = self._repository.served(name)
        if version is None and label is None and not route["metadata"]:
            return status_json(served.versions)
        number = served.number(version, label)
        if route["metadata"]:
            return metadata_json(name, number, served.find(number).signatures)
        return status_json({number: served.versions[number]} if number in served.versions else {})

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body, or None where the client closed the connection before it was complete."""
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        size_bytes = int(length)  # the HTTP parser has checked that it is a number
        chunks: list[bytes] = []
        if size_bytes <= self._max_body_bytes:
            size_bytes = 0
            more = True
            while more and size_bytes <= self._max_body_bytes:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                chunks.append(message.get("body", b""))
                size_bytes += len(chunks[-1])
                more = message.get("more_body", False)
        if size_bytes > self._max_body_bytes:
            raise RequestError(
                f"The request body is larger than {self._max_body_bytes} bytes.",
                code="BODY_TOO_LARGE",
                fix="Send fewer rows at once, or start the server with a larger --max-body-bytes.",
            )
        return b"".join(chunks)


def _number(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def _error_response(error: ServegraphError) -> Response:
    # A request that does not fit is the caller's; anything else without a status of its own is ours.
    status = STATUS.get(error.code, 400 if isinstance(error, RequestError) else 500)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    message = error.message
    if status == 405:
        headers = ((b"allow", error.fix.encode()),)
    elif error.fix:
        message = f"{message} {error.fix}"
    if status == 503:
        headers = ((b"retry-after", b"1"),)
    return Response(status, _error_body(message), headers)


def _error_body(message: str) -> bytes:
    return _json({"error": message})


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
