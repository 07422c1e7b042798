"""What Google's two services have in common: reads that are repeated, pages, long-running operations."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from servegraph.deploy_version.faults import (
    CannotServe,
    NoCapacity,
    NotFound,
    Patience,
    Rejected,
    Unavailable,
    is_no_capacity,
)
from servegraph.errors import DeployRefused, InputError
from servegraph.storage import google_credentials

TIMEOUT_S = 3 * 3600.0  # Vertex AI gives a deployment up to two hours


class Operations:
    """The operations of a service; `get` returns `done` and `error` of one, `cancel` asks for it to be given up."""

    def __init__(
        self,
        get: Callable[[str], Mapping[str, Any]],
        cancel: Callable[[str], None],
        poll_s: float,
        patience: Callable[[], Patience],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Ask for the state of an operation at most every `poll_s`, for `timeout_s`."""
        self._get, self._cancel, self._poll_s, self._patience = get, cancel, poll_s, patience
        self._timeout_s = timeout_s
        self._in_flight: str | None = None

    def wait(self, operation: str, what: str, *, is_ours: bool = False) -> None:
        """Wait for an operation to end well. Raises `NoCapacity`, `CannotServe`, or another fault.

        One of ours that does not end is cancelled: what it was to make can only be taken back once it is over.
        """
        self._in_flight = operation
        deadline_s = time.monotonic() + self._timeout_s
        pause_s = min(0.5, self._poll_s)
        while True:
            found = self._patience().again(lambda: self._get(operation))
            if found.get("done"):
                break
            if time.monotonic() > deadline_s:
                if is_ours:
                    self.cancel()
                raise CannotServe(
                    f"{what} did not end within {self._timeout_s:g} s ({operation}).",
                    fix="See in the cloud console what it waits for, then deploy again.",
                )
            time.sleep(pause_s)
            pause_s = min(self._poll_s, 1.5 * pause_s)
        self._in_flight = None
        if found.get("error"):
            raise _fault(found["error"], what, operation)

    def cancel(self, *operations: str) -> None:
        """Ask for these, or else the one that is waited for, to be given up. Whether they were, the next look tells."""
        if not operations and self._in_flight is not None:
            operations, self._in_flight = (self._in_flight,), None
        for operation in operations:
            with contextlib.suppress(DeployRefused):
                self._patience().again(lambda operation=operation: self._cancel(operation))  # type: ignore[misc]


class GoogleApi:
    """A service that is called by the ids of its methods. Subclasses have `call`."""

    def __init__(self, poll_s: float, patience: Callable[[], Patience]) -> None:
        """Wait for operations and faults as said."""
        self._patience = patience
        self.running = Operations(self._operation, self._cancel, poll_s, patience)

    def call(self, method: str, params: Mapping[str, str], body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the answer; what runs on after it is a long-running operation.

        Raises:
            InputError: the request is not one that the service takes (code `BAD_REQUEST_BODY`).
            DeployRefused: a fault, see `faults`.
        """
        raise NotImplementedError

    def read(self, method: str, params: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the answer to what changes nothing, or None where there is no such resource; faults are waited out."""
        try:
            return self._patience().again(lambda: self.call(method, params))
        except NotFound:
            return None

    def pages(self, method: str, params: Mapping[str, str], key: str) -> list[dict[str, Any]]:
        """Return the items of all pages of a listing; empty where there is no such resource."""
        items: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self.read(method, {**params, **({"pageToken": token} if token else {})}) or {}
            items += page.get(key, [])
            token = page.get("nextPageToken", "")
            if not token:
                return items

    def run(self, method: str, params: Mapping[str, str], body: Mapping[str, Any] | None = None) -> None:
        """Send a request and wait for the operation that it started, if it did."""
        answer = self.call(method, params, body)
        if "/operations/" in str(answer.get("name", "")):
            self.running.wait(str(answer["name"]), method, is_ours=True)

    def _operation(self, name: str) -> Mapping[str, Any]:
        raise NotImplementedError

    def _cancel(self, name: str) -> None:
        raise NotImplementedError


def _fault(error: Mapping[str, Any], what: str, operation: str) -> DeployRefused:
    code, message = int(error.get("code", 0)), str(error.get("message", ""))
    text = f"{what} failed: {message.strip().rstrip('.')} ({operation})."
    if code == 8 or is_no_capacity(message):  # RESOURCE_EXHAUSTED in google.rpc.Code
        return NoCapacity(text, fix="Ask for quota, or give another machine or region.")
    if code in (1, 10, 13, 14):  # CANCELLED, ABORTED, INTERNAL, UNAVAILABLE: what it left, the next look tells
        return Unavailable(text, fix="Run again; what is done already is found and kept.")
    if code in (3, 5):  # INVALID_ARGUMENT, NOT_FOUND
        return Rejected(
            text, fix="Mend what the service names, such as an option, a path or the image, then run again."
        )
    if code == 7:  # PERMISSION_DENIED
        fix = "Grant it to the account that is named, or to the service's own, which reads the files and the image."
        return DeployRefused(text, code="NO_ACCESS", fix=fix)
    return CannotServe(text, fix="See the logs of the container that the message names; mend the model or the image.")


def check_labels(labels: Iterable[tuple[str, str]]) -> None:
    """Refuse labels that Google's services do not take.

    Raises:
        InputError: one is not formed as they want it, or its prefix is theirs (code `BAD_LABEL`).
    """
    for key, value in labels:
        if not is_label(key, value):
            raise InputError(
                f"{key}={value} cannot be a label on Google Cloud.",
                code="BAD_LABEL",
                fix="Use lowercase letters, digits, '_' and '-', first a letter, and not vertex-ai- or goog-.",
            )


def is_label(key: str, value: str) -> bool:
    """Whether Google's services let that label be given; prefixes of their own they do not."""
    is_formed = re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) and re.fullmatch(r"[a-z0-9_-]{0,63}", value)
    return bool(is_formed) and not key.startswith(("vertex-ai-", "goog-"))


def host_of(service: str, region: str | None) -> str:
    """Return the host of a service in a region: nothing but a name may become a part of it, as credentials go there.

    Raises:
        InputError: `region` is no name of one (code `BAD_REGION`).
    """
    if region is None:
        return f"{service}.googleapis.com"
    if not re.fullmatch(r"[a-z][a-z0-9-]*", region):
        raise InputError(f"{region!r} is no region.", code="BAD_REGION", fix="Give one like us-central1.")
    return f"{region}-{service}.googleapis.com"


def is_loopback(url: str | None) -> bool:
    """Whether `url` is that of an emulator on this machine, which gets no credentials.

    Raises:
        InputError: it is plain HTTP to elsewhere, where credentials would be read by anybody (code `INSECURE_URL`).
    """
    from urllib.parse import urlsplit

    parts = urlsplit(url or "")
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme == "http" and not local:
        raise InputError(
            f"{url} is plain HTTP to another machine.", code="INSECURE_URL", fix="Give an https:// address."
        )
    return local


def check_credentials() -> None:
    """Refuse a file of credentials that can be none. Raises `DeployRefused` (code `NO_CREDENTIALS`)."""
    if what := google_credentials.problem():
        raise no_credentials(what)


def no_credentials(why: object) -> DeployRefused:
    """Return the error for missing or stale credentials."""
    return DeployRefused(
        f"Google's credentials cannot be used: {why}", code="NO_CREDENTIALS", fix=google_credentials.FIX
    )
