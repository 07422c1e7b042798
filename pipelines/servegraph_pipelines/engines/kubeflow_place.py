"""Where Kubeflow Pipelines answers: its address, the token for it, and whether it is there at all."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from servegraph.deploy_version.faults import TRANSIENT, NotFound, Patience, fault_of, no_answer
from servegraph.deploy_version.google_api import is_loopback
from servegraph.errors import InputError
from servegraph.extras import package_missing

T = TypeVar("T")
CALL_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
_TOKEN = re.compile(rb"[!-~]+")  # what a header may have
_WITH_NAME = re.compile(r"(\w+://)?[^/?#]*@")  # an address with a name, or a password, before the host


class KubeflowPlace:
    """One installation of Kubeflow Pipelines, by the address of its API."""

    def __init__(
        self,
        host: str,
        namespace: str | None,
        token_file: Path | None,
        patience: Callable[[], Patience],
        connect_timeout_s: float,
    ) -> None:
        """Name the place; nothing is imported or sent yet. Without a token, the client's own configuration counts.

        Raises:
            InputError: a password stands in the address, which is shown and logged (code `BAD_URL`).
        """
        if _WITH_NAME.match(host):
            raise InputError(
                "The address of Kubeflow Pipelines has a name or a password in it.",
                code="BAD_URL",
                fix="Leave them out, and give a token with --token-file.",
            )
        self.host = host.rstrip("/")
        self._namespace, self._token_file, self._connect_timeout_s = namespace, token_file, connect_timeout_s
        self._patience = patience()  # one for all calls: once the place has answered, an outage is waited out

    def again(self, call: Callable[[], T]) -> T:
        """Call it until it is answered: faults that pass are waited out, so its second time must find the first."""
        return self._patience.again(call)

    @contextlib.contextmanager
    def calling(self, what: str) -> Iterator[Any]:
        """Yield the client; what it prints is not shown, and its errors are faults."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield self._client
        except ApiException as exc:
            if not exc.status:  # so it passes on that there is no connection over TLS
                raise no_answer(f"{what} of {self.host}", exc) from exc
            raise fault_of(int(exc.status), _message(exc), what) from exc
        except (HTTPError, OSError) as exc:
            fix = "Check --host and the network, then run again."
            raise no_answer(f"{what} of {self.host}", exc, fix) from exc

    def headers(self) -> dict[str, str]:
        """Return the headers of a call that the client has no function for."""
        token = self._token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def close(self) -> None:
        """Close the connections."""
        if "_client" in vars(self):
            self._client._run_api.api_client.rest_client.pool_manager.clear()

    @functools.cached_property
    def _client(self) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # that it needs Kubeflow Pipelines 2
                from kfp import Client

                token = self._token()
                self._reach()
                return Client(host=self.host, namespace=self._namespace or "kubeflow", existing_token=token)
        except ImportError as exc:
            raise package_missing("kfp", "Kubeflow Pipelines") from exc

    def _reach(self) -> None:
        """Ask for the API's health: the client would do so for minutes where packets are dropped or nothing is there.

        Raises:
            InputError: the address is none (code `BAD_URL`).
            NotFound: something else answers at the address.
        """
        import urllib3

        url = self.host if "://" in self.host else f"https://{self.host}"  # as the client takes it
        timeout = urllib3.Timeout(connect=self._connect_timeout_s, read=CALL_TIMEOUT_S)
        with urllib3.PoolManager(retries=False) as pool, contextlib.suppress(urllib3.exceptions.SSLError):
            try:
                answer = pool.request("GET", f"{url}/apis/v2beta1/healthz", headers=self.headers(), timeout=timeout)
            except urllib3.exceptions.LocationValueError as exc:
                raise InputError(
                    f"{self.host!r} is no address: {exc}.", code="BAD_URL", fix="Give http:// or https:// and a host."
                ) from exc
            if answer.status == 404:
                raise NotFound(
                    f"There is no Kubeflow Pipelines 2 at {self.host}: it knows no /apis/v2beta1/healthz.",
                    fix="Check --host. In an installation of all of Kubeflow it ends in /pipeline.",
                )
            if answer.status in TRANSIENT:  # with 401 and the like the client may know more
                raise fault_of(answer.status, answer.reason or "", f"health of {self.host}")

    def _token(self) -> str | None:
        if self._token_file is None:
            return None
        is_loopback(self.host)  # elsewhere it goes out encrypted only
        try:
            token = self._token_file.read_bytes().strip()
        except OSError as exc:
            raise _no_token(f"The token {self._token_file} cannot be read: {exc}.") from exc
        if not _TOKEN.fullmatch(token):  # the client would quote it in its error
            raise _no_token(f"The file {self._token_file} holds no token: nothing, or more than one line or word.")
        return token.decode()


def _no_token(what: str) -> InputError:
    fix = "Give --token-file a file that can be read and holds the token alone."
    return InputError(what, code="NO_CREDENTIALS", fix=fix)


def _message(exc: Any) -> str:
    try:
        document: Mapping[str, Any] = json.loads(exc.body)
        return str(document.get("message") or document.get("error_message") or document["error"])
    except (ValueError, KeyError, TypeError):
        return str(exc.reason)
