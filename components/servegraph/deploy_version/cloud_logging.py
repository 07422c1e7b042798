"""The last lines that a job or a container printed, from Cloud Logging: the services' own errors only point there."""

from __future__ import annotations

import functools
import http.client
from datetime import datetime
from typing import Any

from servegraph.deploy_version.discovery import load, require_valid
from servegraph.deploy_version.faults import fault_of, no_answer, unreadable
from servegraph.deploy_version.google_api import is_loopback, no_credentials
from servegraph.extras import package_missing

CALL_TIMEOUT_S = 30.0
LINES = 300  # enough for a traceback of TensorFlow


class CloudLogging:
    """The logs of one project. `url` is an emulator's, which gets no credentials."""

    def __init__(self, project: str, url: str | None = None) -> None:
        """Name the place; nothing is imported or sent yet."""
        self._project, self._url = project, url or "https://logging.googleapis.com"
        self._anonymous = is_loopback(url)

    def last_lines(self, which: str, most: int = LINES) -> list[str]:
        """Return the last lines of the entries that the filter `which` names, oldest first.

        Raises:
            DeployRefused: they cannot be read (`faults`).
        """
        from google.auth.exceptions import GoogleAuthError, TransportError
        from googleapiclient.errors import HttpError
        from httplib2 import HttpLib2Error

        body = {
            "resourceNames": [f"projects/{self._project}"],
            "filter": which,
            "orderBy": "timestamp desc",
            "pageSize": most,
        }
        require_valid(load("logging", "v2"), "logging.entries.list", {}, body)
        try:
            found = self._client.entries().list(body=body).execute(num_retries=2)
        except HttpError as exc:
            raise fault_of(int(exc.status_code), str(exc.reason), "entries.list") from exc
        except (TransportError, HttpLib2Error, http.client.HTTPException, OSError) as exc:
            raise no_answer("entries.list", exc) from exc
        except GoogleAuthError as exc:
            raise no_credentials(exc) from exc
        if not isinstance(found, dict):  # the client hands on what is no JSON
            raise unreadable("entries.list", f"{str(found)[:100]!r} is no object")
        texts = [_text(entry) for entry in reversed(found.get("entries", []))]
        return [line for text in texts for line in text.splitlines()][-most:]

    def close(self) -> None:
        """Close the connections."""
        if "_client" in vars(self):
            self._client.close()

    @functools.cached_property
    def _client(self) -> Any:
        try:
            from servegraph.deploy_version.google_http import open_client
        except ImportError as exc:
            raise package_missing("googleapiclient", "Reading logs") from exc
        scope = None if self._anonymous else "logging.read"
        return open_client("logging", "v2", self._url, scope, CALL_TIMEOUT_S)


def of_job(job: str) -> str:
    """Return the filter for what the custom job of this id printed."""
    return f'resource.type="ml_job" AND resource.labels.job_id="{job}"'


def of_endpoint(endpoint: str, since: datetime) -> str:
    """Return the filter for what containers of `projects/…/locations/L/endpoints/ID` printed since a time in UTC."""
    *_, location, _, identifier = endpoint.split("/")
    kind = 'resource.type="aiplatform.googleapis.com/Endpoint"'
    where = f'resource.labels.endpoint_id="{identifier}" AND resource.labels.location="{location}"'
    return f'{kind} AND {where} AND timestamp>="{since.isoformat(timespec="seconds")}"'


def _text(entry: dict[str, Any]) -> str:
    return str(entry.get("textPayload") or entry.get("jsonPayload", {}).get("message", ""))
