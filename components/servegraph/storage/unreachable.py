"""A host that nobody answers at: no such name, or no connection. Unlike a fault of a service it seldom passes."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

# How long to go on where nothing has ever answered. Afterwards it may be an outage, which is waited out for longer.
REACH_S = 15.0
FIX = "Check the network and the proxy (HTTPS_PROXY), and that the address is right; then run again."
# Of urllib3 and httplib2, which wrap the system's error, some of them as text.
_NAMES = frozenset(
    {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ConnectTimeout", "ServerNotFoundError"}
)

_log = logging.getLogger(__name__)


def is_unreachable(error: BaseException | None) -> bool:
    """Whether `error`, or what it wraps, says that no connection could be made."""
    pending, seen = [error], set()
    while pending:
        found = pending.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, (ConnectionRefusedError, socket.gaierror)) or type(found).__name__ in _NAMES:
            return True
        wrapped = [found.__cause__, found.__context__, getattr(found, "reason", None), getattr(found, "cause", None)]
        pending += [item for item in (*wrapped, *found.args) if isinstance(item, BaseException)]
    return False


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
