"""From HTTP requests to answers: routes, methods and statuses. Knows nothing of sockets.

Statuses after `http_server.cc` and `response_code_enum.h` in tensorflow/serving.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from servegraph.errors import RequestError, ServegraphError
from servegraph.serve.content_types import check_json_types
from servegraph.serve.lane import Outcome
from servegraph.serve.metadata import metadata_json, status_json
from servegraph.serve.options import DEFAULT_MAX_BODY_BYTES
from servegraph.serve.repository import Repository
from servegraph.serve.routes import METHODS, Aliases, Route, path_of, route_of

STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "BODY_TOO_LARGE": 413,
    "UNSUPPORTED_ENCODING": 415,
    "HEADERS_TOO_LARGE": 431,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
MOST_KNOWN_TARGETS = 1024
JSON_TYPE = b"application/json"
RETRY_AFTER_S = 1

_GZIP = "Send one gzip member, whole, or the body as it is."

_log = logging.getLogger(__name__)


class Request(NamedTuple):
    """A complete request. `target` as it was sent; `headers` are those that matter here, in lower case.

    `hold` counts more bytes against what the bodies of all clients may take, until there is an answer; it raises
    `RequestError` (code `UNAVAILABLE`) where that is too much.
    """

    method: bytes
    target: bytes
    headers: Mapping[bytes, bytes]
    body: bytes
    hold: Callable[[int], None] = lambda _bytes: None


class Response(NamedTuple):
    """What is sent back; `headers` beyond content type and length, `route` for metrics and logs."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = JSON_TYPE
    route: Route | None = None


Respond = Callable[[Response], None]


@dataclass
class Health:
    """What the readiness answers say beyond the models: whether the server is on its way out."""

    is_draining: bool = False


@dataclass(frozen=True)
class AppOptions:
    """Limits, and paths beside the usual ones, with what they mean: `/predict` as Vertex asks it."""

    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    aliases: Aliases = ()
    metrics: Callable[[], bytes] | None = None


class App:
    """Answers for the models of a repository."""

    def __init__(self, repository: Repository, options: AppOptions | None = None, health: Health | None = None) -> None:
        """Nothing is loaded here: the repository does that."""
        self._repository = repository
        self._options = options or AppOptions()
        self.health = health or Health()
        self._aliases: dict[str, list[Route]] = {}
        for path, route in self._options.aliases:
            self._aliases.setdefault(path_of(path.encode()), []).append(route)
        self._targets: dict[bytes, Route] = {}

    def handle(self, request: Request, respond: Respond) -> None:
        """Call `respond` with the answer, now or later in this thread; whatever goes wrong is answered too."""
        route = self._targets.get(request.target)
        try:
            if route is None:
                route = self._find(request)
            if request.method != b"POST" or route.kind not in METHODS:
                respond(self._answer(request, route))
                return
            body = self._body(request)
            served = self._repository.served(route.name)
            found = route

            def done(outcome: Outcome) -> None:
                if isinstance(outcome, bytes):
                    respond(Response(200, outcome, route=found))
                else:
                    respond(error_response(outcome, found))

            model = served.find(route.version, route.label)
            if model.is_routine:
                check_json_types(request.headers)
            model.ask(route.kind, body, done)  # type: ignore[arg-type]
        except Exception as exc:  # every request is answered
            respond(error_response(exc, route))

    def _find(self, request: Request) -> Route:
        aliases = self._aliases.get(path_of(request.target), [])
        if len(aliases) > 1:  # one path for health and predictions: the method tells
            return next((one for one in aliases if one.method == _method_of(request)), aliases[0])
        route = aliases[0] if aliases else route_of(request.target)
        if route is None:
            raise RequestError(
                f"Malformed request: {request.method.decode('latin-1')} {request.target.decode('latin-1')}.",
                code="NOT_FOUND",
                fix="Routes: /v1/models, /v1/models/NAME[/versions/N|/labels/L][/metadata], …:predict.",
            )
        if (aliases or route.name is not None) and len(self._targets) < MOST_KNOWN_TARGETS:
            self._targets[request.target] = route
        return route

    def _answer(self, request: Request, route: Route) -> Response:
        if _method_of(request) != route.method:
            raise RequestError(
                f"{request.target.decode('latin-1')} takes {route.method}, not {request.method.decode('latin-1')}.",
                code="METHOD_NOT_ALLOWED",
                fix=route.method,
            )
        if route.kind == "live":
            return Response(200, _json({"status": "alive"}), route=route)
        if route.kind == "ready":
            return self._ready(route)
        if route.kind == "metrics":
            if self._options.metrics is None:
                raise RequestError("Metrics are off.", code="NOT_FOUND", fix="Give AppOptions the metrics.")
            return Response(200, self._options.metrics(), (), b"text/plain; version=0.0.4; charset=utf-8", route)
        return Response(200, _json(self._describe(route)), route=route)

    def _ready(self, route: Route) -> Response:
        reason = "The server is stopping." if self.health.is_draining else self._repository.unready()
        if reason is None:
            return Response(200, _json({"status": "ready"}), route=route)
        return Response(503, _error_body(reason), _retry_after(), route=route)

    def _describe(self, route: Route) -> Mapping[str, Any]:
        if route.kind == "models":
            return {"models": self._repository.names()}
        served = self._repository.served(route.name)
        if route.kind == "status" and route.version is None and route.label is None:
            # TF Serving's document, with the two keys of KServe V1's on the same path.
            return {"name": served.name, "ready": bool(served.answering), **status_json(served.versions)}
        number = served.number(route.version, route.label)
        if route.kind == "metadata":
            return metadata_json(served.name, number, served.find(number).signatures)
        return status_json({number: served.versions[number]} if number in served.versions else {})

    def _body(self, request: Request) -> bytes:
        encoding = request.headers.get(b"content-encoding", b"identity").lower()
        if encoding == b"identity":
            return request.body
        if encoding not in (b"gzip", b"x-gzip"):
            raise RequestError(
                f"Content-Encoding {encoding.decode('latin-1')!r} is not supported.",
                code="UNSUPPORTED_ENCODING",
                fix="Send the body as it is, or with gzip.",
            )
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            body = inflater.decompress(request.body, self._options.max_body_bytes + 1)
        except zlib.error as exc:
            raise RequestError(f"The body is not gzip: {exc}.", code="INVALID_ARGUMENT", fix=_GZIP) from exc
        if len(body) > self._options.max_body_bytes:
            raise too_large(self._options.max_body_bytes)
        if not inflater.eof:
            raise RequestError("The gzip body is cut short.", code="INVALID_ARGUMENT", fix=_GZIP)
        if inflater.unused_data:  # of a million members each would be copied with all that follow it
            raise RequestError("The gzip body goes on after its end.", code="INVALID_ARGUMENT", fix=_GZIP)
        request.hold(len(body))
        return body


def _method_of(request: Request) -> str:
    return "GET" if request.method == b"HEAD" else request.method.decode("latin-1")


def too_large(max_body_bytes: int) -> RequestError:
    """Return the error for a body above the limit."""
    return RequestError(
        f"The request body is larger than {max_body_bytes} bytes.",
        code="BODY_TOO_LARGE",
        fix="Send fewer rows at once, or start the server with a larger --max-body-bytes.",
    )


def error_response(error: Exception, route: Route | None = None) -> Response:
    """Return the answer that tells of `error`, `{"error": "…"}`."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 400 <= status < 600:  # an HTTPException of the framework that a predictor was for
        return Response(status, _error_body(str(getattr(error, "detail", error))), route=route)
    if not isinstance(error, ServegraphError):
        _log.error("a request failed", exc_info=error)
        return Response(500, _error_body(f"{type(error).__name__}: {error}"), route=route)
    # A request that does not fit is the caller's; anything else without a status of its own is ours.
    status = STATUS.get(error.code, 400 if isinstance(error, RequestError) else 500)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    message = error.message
    if status == 405:
        headers = ((b"allow", error.fix.encode()),)
    elif error.fix:
        message = f"{message} {error.fix}"
    if status in (429, 503):
        headers = _retry_after()
    return Response(status, _error_body(message), headers, route=route)


def _retry_after() -> tuple[tuple[bytes, bytes], ...]:
    return ((b"retry-after", str(RETRY_AFTER_S).encode()),)


def _error_body(message: str) -> bytes:
    return _json({"error": message})


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def head_of(response: Response, date: bytes, keep_alive: bool) -> bytes:
    """Return the status line and the headers of `response`; `date` is a line of its own."""
    if response.status == 200 and keep_alive and not response.headers:
        return b"HTTP/1.1 200 OK\r\n%bcontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (
            date,
            response.content_type,
            len(response.body),
        )
    lines = [
        f"HTTP/1.1 {response.status} {REASONS.get(response.status, '')}\r\n".encode(),
        date,
        b"content-type: " + response.content_type + b"\r\n",
        f"content-length: {len(response.body)}\r\n".encode(),
        *(name + b": " + value + b"\r\n" for name, value in response.headers),
        b"" if keep_alive else b"connection: close\r\n",
        b"\r\n",
    ]
    return b"".join(lines)
