"""What the emulated Google services have in common: routes and bodies by the discovery document, and operations."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote

from tests.emulators.http_server import Answer, LoopbackServer, Request, json_answer

from servegraph.deploy_version.discovery import Document, load

STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
}


class Refused(Exception):
    """An error that the service answers with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def need(condition: object, message: str, status: int = 400) -> None:
    if not condition:
        raise Refused(status, message)


@dataclass
class Operation:
    """A long-running operation: its effect comes when it has been asked for `polls` times."""

    name: str
    finish: Callable[[], dict[str, Any]]
    polls: int
    metadata: dict[str, Any]  # as the service shows it
    facts: dict[str, Any] = field(default_factory=dict)  # what the emulator remembers of it
    done: bool = False
    cancelled: Callable[[], None] = lambda: None
    error: dict[str, Any] | None = None
    response: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"name": self.name, "metadata": self.metadata, "done": self.done}
        if self.error:
            document["error"] = self.error
        if self.response is not None:
            document["response"] = self.response
        return document


class Failed(Exception):
    """An operation that ends with an error: a code of google.rpc.Code and words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class GoogleService(LoopbackServer):
    """A service whose methods are functions named after the ids of its discovery document, dots as `_`.

    Each gets the parameters of path and query, and the body. `log` has the id of every method called.
    """

    service, version = "", ""
    prefix = ""  # of the method ids, which handlers leave out

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.document: Document = load(self.service, self.version)
        self.lock = threading.RLock()
        self.operations: dict[str, Operation] = {}
        self.pending_polls = 1
        self.log: list[str] = []
        self.numbers = itertools.count(1000)
        self._routes = [
            (m["httpMethod"], re.compile("/" + re.sub(r"\{\+?(\w+)\}", r"(?P<\1>[^:]+?)", m["path"]) + r"\Z"), m)
            for m in sorted(self.document.methods.values(), key=lambda m: -len(m["path"]))
            if self.handler(m["id"])
        ]

    def handler(self, method_id: str) -> Callable[..., dict[str, Any]] | None:
        if not method_id.startswith(self.prefix):
            return None
        return getattr(self, method_id.removeprefix(self.prefix).replace(".", "_"), None)

    def counted(self, method: str) -> int:
        """How often a method was called."""
        return sum(1 for logged in self.log if logged == method)

    def start(
        self, parent: str, finish: Callable[[], dict[str, Any]], metadata: dict[str, Any], **facts: Any
    ) -> dict[str, Any]:
        """Begin an operation below `parent`."""
        name = f"{parent}/operations/{next(self.numbers)}"
        operation = Operation(name, finish, self.pending_polls, metadata, facts)
        self.operations[operation.name] = operation
        self.poll(operation)
        return operation.to_json()

    def poll(self, operation: Operation) -> None:
        if operation.done:
            return
        if operation.polls > 0:
            operation.polls -= 1
            return
        operation.done = True
        try:
            operation.response = operation.finish()
        except Failed as failure:
            operation.error = {"code": failure.code, "message": failure.message}

    def cancel_operation(self, name: str) -> dict[str, Any]:
        operation = self.operations.get(name)
        need(operation, f"{name} does not exist.", 404)
        assert operation is not None
        if not operation.done:
            operation.done, operation.error = True, {"code": 1, "message": "The operation was cancelled."}
            operation.cancelled()
        return {}

    def _respond(self, request: Request) -> Answer:
        try:
            with self.lock:
                return json_answer(self._handle(request))
        except Refused as refusal:
            status = STATUS_NAMES.get(refusal.status, "UNKNOWN")
            error = {"code": refusal.status, "message": refusal.message, "status": status}
            return json_answer({"error": error}, refusal.status)

    def _handle(self, request: Request) -> dict[str, Any]:
        path = unquote(request.path).replace("/ui/", "/v1/", 1)  # Google's own clients poll operations there
        # Parameters that every service has.
        query = {key: value for key, value in request.query.items() if key not in ("alt", "$alt")}
        if found := re.fullmatch(r"/v1/(.+/operations/\d+)(:cancel)?", path):
            if found[2]:
                return self.cancel_operation(found[1])
            operation = self.operations.get(found[1])
            need(operation, f"{found[1]} does not exist.", 404)
            assert operation is not None
            self.poll(operation)
            return operation.to_json()
        if found := re.fullmatch(r"/v1/(.+)/operations", path):
            prefix = found[1] + "/operations/"
            return {"operations": [o.to_json() for n, o in self.operations.items() if n.startswith(prefix)]}
        for verb, pattern, method in self._routes:
            found = pattern.match(path)
            if found and verb == request.method and self._is_below(method, found.groupdict()):
                body = json.loads(request.body) if request.body else None
                return self._call(method, {**found.groupdict(), **query}, body)
        raise Refused(404, f"No such route: {request.method} {path}")

    def _is_below(self, method: Mapping[str, Any], params: Mapping[str, str]) -> bool:
        return all(re.search(method["parameters"][k].get("pattern", ""), v) for k, v in params.items())

    def _call(self, method: Mapping[str, Any], params: dict[str, str], body: Any) -> dict[str, Any]:
        if body is None and "request" in method:
            body = {}
        body = self.normal(method, body)
        problems = self.check(method, params, body)
        need(not problems, f"Invalid request {method['id']}: {'; '.join(problems)}")
        self.log.append(method["id"].removeprefix(self.prefix))
        handle = self.handler(method["id"])
        assert handle is not None
        return handle(**params) if body is None else handle(body, **params)

    def check(self, method: Mapping[str, Any], params: Mapping[str, str], body: Any) -> list[str]:
        """What is wrong with a request by the published document."""
        return self.document.problems(method["id"], params, body)

    def normal(self, method: Mapping[str, Any], body: Any) -> Any:
        """The body with enums as names, which some of Google's clients send as numbers."""
        return body


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
