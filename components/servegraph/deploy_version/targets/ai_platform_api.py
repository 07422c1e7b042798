"""Calls to AI Platform Prediction (ml v1) through google-api-python-client and the published discovery document."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from servegraph.deploy_version.discovery import load, require_valid
from servegraph.deploy_version.faults import Patience, fault_of, no_answer, unreadable
from servegraph.deploy_version.google_api import GoogleApi, host_of, is_loopback, no_credentials
from servegraph.extras import package_missing

PREFIX = "ml.projects."
CALL_TIMEOUT_S = 60.0
# The body of a prediction goes to the container as it is; the schema has only a wrapper for it.
_PASSED_ON = frozenset({"predict"})


class AiPlatformApi(GoogleApi):
    """The service at its global endpoint, or a region's. `url` is for an emulator."""

    def __init__(
        self,
        region: str | None,
        url: str | None = None,
        poll_s: float = 5.0,
        patience: Callable[[], Patience] = Patience,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """Name the service; nothing is imported or sent yet."""
        self._url = url or f"https://{host_of('ml', region)}"
        self._anonymous, self._timeout_s = is_loopback(url), timeout_s
        super().__init__(poll_s, patience)

    def call(self, method: str, params: Mapping[str, str], body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the answer."""
        if method not in _PASSED_ON:
            require_valid(load("ml", "v1"), PREFIX + method, params, body)
        resource = self._client.projects()
        *collections, function = method.split(".")
        for collection in collections:
            resource = getattr(resource, collection)()
        arguments = {**params, **({} if body is None else {"body": body})}
        what = f"{method} of {params.get('name') or params.get('parent')}"
        with _faults(what):
            answer = getattr(resource, function)(**arguments).execute(num_retries=0)
        if not isinstance(answer, dict):  # the client hands on what is no JSON
            raise unreadable(what, f"{str(answer)[:100]!r} is no object")
        return answer

    def close(self) -> None:
        """Close the connections."""
        if "_client" in vars(self):
            self._client.close()

    def _operation(self, name: str) -> Mapping[str, Any]:
        return self.call("operations.get", {"name": name})

    def _cancel(self, name: str) -> None:
        self.call("operations.cancel", {"name": name})

    @functools.cached_property
    def _client(self) -> Any:
        try:
            from servegraph.deploy_version.google_http import open_client
        except ImportError as exc:
            raise package_missing("googleapiclient", "The target ai-platform") from exc
        scope = None if self._anonymous else "cloud-platform"
        return open_client("ml", "v1", self._url, scope, self._timeout_s)


@contextlib.contextmanager
def _faults(what: str) -> Iterator[None]:
    import http.client

    from google.auth.exceptions import GoogleAuthError, TransportError
    from googleapiclient.errors import HttpError
    from httplib2 import HttpLib2Error

    try:
        yield
    except HttpError as exc:
        raise fault_of(int(exc.status_code), _message(exc), what) from exc
    except (TransportError, HttpLib2Error, http.client.HTTPException, OSError) as exc:
        raise no_answer(what, exc) from exc
    except GoogleAuthError as exc:
        raise no_credentials(exc) from exc


def _message(exc: Any) -> str:
    try:
        return str(json.loads(exc.content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(exc.reason or exc)
