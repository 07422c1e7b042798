"""Clients of Google's services that are described by discovery documents, and the connections that they use."""

from __future__ import annotations

from typing import Any

import google.auth
import google_auth_httplib2
import httplib2
from google.auth.exceptions import GoogleAuthError
from googleapiclient import discovery

from servegraph.deploy_version.google_api import check_credentials, no_credentials


class Connections(httplib2.Http):  # type: ignore[misc]  # the library has no types
    """Connections that are closed when a request ends without its answer.

    After an interrupt httplib2 keeps one by itself, and reads the late answer as that of the next request, which it
    does not even send (`_conn_request`, where `CannotSendRequest` is passed over at the last try).
    """

    def request(self, *args: Any, **options: Any) -> Any:
        """Send a request and return the answer, as the library does."""
        try:
            return super().request(*args, **options)
        except BaseException:
            self.close()
            raise


def open_client(service: str, version: str, url: str, scope: str | None, timeout_s: float) -> Any:
    """Return a client for what is at `url`; without a `scope` it is an emulator's, which gets no credentials.

    Raises:
        DeployRefused: there are no credentials (code `NO_CREDENTIALS`).
    """
    http = Connections(timeout=timeout_s)
    if scope is not None:
        check_credentials()
        try:
            credentials, _ = google.auth.default(scopes=[f"https://www.googleapis.com/auth/{scope}"])
        except GoogleAuthError as exc:
            raise no_credentials(exc) from exc
        http = google_auth_httplib2.AuthorizedHttp(credentials, http=http)
    options = {"api_endpoint": url.rstrip("/") + "/"}
    return discovery.build(service, version, http=http, static_discovery=True, client_options=options)
