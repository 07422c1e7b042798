"""What can go wrong with a service, in the kinds that are treated differently, and the rule for trying again."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from servegraph.errors import DeployRefused
from servegraph.storage.unreachable import FIX, FIX_TLS, REACH_S, is_unreachable, untrusted

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Unavailable(DeployRefused):
    """The service did not answer, or not sensibly: its effect is unknown, look again and go on."""

    default_code = "SERVICE_UNAVAILABLE"


class Unreachable(Unavailable):
    """No connection could be made: the service never saw the request."""

    default_code = "UNREACHABLE"


class Unreadable(Unavailable):
    """What came with HTTP 200 is no answer of the service: something between sent it, or a container that errs."""

    default_code = "UNREADABLE_ANSWER"


class Overtaken(DeployRefused):
    """What was seen is no longer so: look again and go on."""

    default_code = "CHANGED_MEANWHILE"


class NoCapacity(DeployRefused):
    """No quota, or no such machine in stock: another machine may do."""

    default_code = "NO_CAPACITY"


class NotFound(DeployRefused):
    """There is no such resource."""

    default_code = "NOT_FOUND"


class Rejected(DeployRefused):
    """The service does not take the request, now or later."""

    default_code = "REJECTED_BY_SERVICE"


class CannotServe(DeployRefused):
    """The version never became ready, or answers wrongly: it must not serve."""

    default_code = "CANNOT_SERVE"


TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_OVERTAKEN = frozenset({409, 412})
# What Vertex AI, AI Platform and Compute Engine say when there is no machine or no quota for it; a rate limit, which
# is per minute, is over soon.
_NO_CAPACITY = re.compile(
    r"RESOURCE_POOL_EXHAUSTED|stock.?out|out of stock|not have enough resources|insufficient.{0,20}(capacity|quota)"
    r"|resources? (are|is) (insufficient|unavailable)|exceed(s|ed)?.{0,20}quota|quota.{0,40}exceed(ed)?"
    r"|custom_model_serving|no available capacity|Insufficient (nvidia|cpu|memory)",
    re.IGNORECASE | re.DOTALL,
)
_RATE = re.compile(r"per.?(\d+ )?(second|minute)|RATE_LIMIT", re.IGNORECASE)


def is_no_capacity(message: str) -> bool:
    """Whether the words of a service mean that a machine is not to be had, and not that requests come too fast."""
    return bool(_NO_CAPACITY.search(message)) and not _RATE.search(message)


def fault_of(status: int, message: str, what: str) -> DeployRefused:
    """Return the fault that an HTTP error of a service is; `what` says what was asked of which resource."""
    text = f"{what}: the service answered {status} ({message.strip().rstrip('.')[:500]})."
    if status in (400, 403, 429, 500, 503) and is_no_capacity(message):
        return NoCapacity(text, fix="Ask for quota, or give another machine or region.")
    if status == 404:
        return NotFound(text, fix="Check the project, the region and the name.")
    if status in TRANSIENT:
        return Unavailable(text, fix="Run again; what is done already is found and kept.")
    if status in _OVERTAKEN:
        return Overtaken(text, fix="Run again; what is done already is found and kept.")
    if status in (401, 403):
        fix = "Run `gcloud auth application-default login`, or grant the account the permission that is named."
        return DeployRefused(text, code="NO_ACCESS", fix=fix)
    return Rejected(text, fix="Mend what the service names, then run again.")


def no_answer(what: str, error: Exception, fix: str = "Check the network, then run again.") -> Unavailable:
    """Return the fault for a request that got no answer; `error` is what the HTTP library raised."""
    if why := untrusted(error):
        return Unreachable(f"{what}: the service cannot be reached ({why}).", fix=FIX_TLS)
    if is_unreachable(error):
        return Unreachable(f"{what}: the service cannot be reached ({_reason(error)}).", fix=FIX)
    return Unavailable(f"{what}: no answer ({type(error).__name__}).", fix=fix)


def unreadable(what: str, why: str) -> Unreadable:
    """Return the fault for what cannot be an answer of the service; `why` says what is odd."""
    return Unreadable(f"{what}: the answer cannot be read ({why}).", fix="Check what answers at that address.")


def _reason(error: Exception) -> str:
    """The last words of what a chain of wrapped errors says: those of the system."""
    said = str(error.args[-1] if error.args else error)
    return said.rsplit(": ", 1)[-1].strip("'\")>. ")[:200] or type(error).__name__


class Patience:
    """How long to go on in the face of faults that pass: waits that double, until `deadline_s` without progress.

    Where nothing has answered yet and no connection can be made, it is `REACH_S`. What is waited for is logged.
    """

    def __init__(
        self,
        deadline_s: float = 300.0,
        first_s: float = 0.5,
        longest_s: float = 20.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Give up `deadline_s` after the first of a row of faults; `clock` says the time in seconds."""
        self._deadline_s, self._first_s, self._longest_s = deadline_s, first_s, longest_s
        self._sleep, self._clock = sleep, clock
        self._since: float | None = None
        self._wait_s = first_s
        self._has_answered = False

    def relax(self) -> None:
        """Start anew: there was progress."""
        self._has_answered = True
        self._since, self._wait_s = None, self._first_s

    def pause(self, fault: DeployRefused) -> None:
        """Wait before the next try. Raises `fault` where the deadline is over."""
        now = self._clock()
        deadline_s = self._deadline_s
        if isinstance(fault, Unreachable) and not self._has_answered:
            deadline_s = min(deadline_s, REACH_S)
        if self._since is None:
            self._since = now
            _log.warning("%s Trying again for up to %g s.", fault.message, deadline_s)
        wait_s = self._wait_s * random.uniform(0.7, 1.3)  # noqa: S311  so that many do not come back together
        if now + wait_s > self._since + deadline_s:
            raise fault
        self._sleep(wait_s)
        self._wait_s = min(self._longest_s, 2 * self._wait_s)

    def again(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, calling it again while it is `Unavailable`. Only for what changes nothing.

        Each time it is a row of faults of its own, also within another's `call`, which that is no progress of; what is
        kept is whether the place has ever answered.
        """
        outer = self._since, self._wait_s
        self._since, self._wait_s = None, self._first_s
        try:
            while True:
                try:
                    answer = call()
                except Unavailable as fault:
                    self.pause(fault)
                else:
                    self._has_answered = True
                    return answer
        finally:
            self._since, self._wait_s = outer
