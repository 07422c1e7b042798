"""A host that nobody answers at: no such name, no connection, or a stranger's certificate. It seldom passes by itself,
unlike a fault of a service.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator

# How long to go on where nothing has ever answered. Afterwards it may be an outage, which is waited out for longer.
REACH_S = 15.0
FIX = "Check the network and the proxy (HTTPS_PROXY), and that the address is right; then run again."
FIX_TLS = (
    "Check the address. Where a proxy answers in its place, let its authority be trusted: REQUESTS_CA_BUNDLE and "
    "HTTPLIB2_CA_CERTS name a file of authorities; for a cluster the kubeconfig does."
)
# Before anything is sent: the certificate is not trusted, or what answers knows no TLS.
_NO_TLS = frozenset({"CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER"})
# Of urllib3 and httplib2, which wrap the system's error, some of them as text.
_NAMES = frozenset(
    {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ConnectTimeout", "ServerNotFoundError"}
)

_log = logging.getLogger(__name__)


def is_unreachable(error: BaseException | None) -> bool:
    """Whether `error`, or what it wraps, says that no connection could be made."""
    return untrusted(error) is not None or any(
        isinstance(found, (ConnectionRefusedError, socket.gaierror)) or type(found).__name__ in _NAMES
        for found in _wrapped(error)
    )


def untrusted(error: BaseException | None) -> str | None:
    """Return why no connection over TLS was made, in the words of the library; None where it is not that."""
    for found in _wrapped(error):
        if isinstance(found, ssl.SSLError) and found.reason in _NO_TLS:
            said = getattr(found, "verify_message", "") or str(found.reason).replace("_", " ").lower()
            return f"{said} in TLS"
    return None


def _wrapped(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all that it wraps, in any of the ways that libraries have for it."""
    pending, seen = [error], set()
    while pending:
        found = pending.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        wrapped = [found.__cause__, found.__context__, getattr(found, "reason", None), getattr(found, "cause", None)]
        pending += [item for item in (*wrapped, *found.args) if isinstance(item, BaseException)]


def giving_up(
    is_transient: Callable[[BaseException], bool], what: str, clock: Callable[[], float] = time.monotonic
) -> Callable[[BaseException], bool]:
    """Return the predicate of a retry that ends early, and says that it waits, where `what` cannot be reached."""
    since: list[float] = []

    def goes_on(error: BaseException) -> bool:
        if not is_unreachable(error):
            return is_transient(error)
        if not since:
            since.append(clock())
            _log.warning("%s cannot be reached; trying for %g s", what, REACH_S)
        return is_transient(error) and clock() - since[0] < REACH_S

    return goes_on
