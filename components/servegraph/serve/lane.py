"""The line in front of a model: its calls run in threads of their own, and what waits may share a call.

Everything here but `_work` runs in the thread of the event loop, so nothing needs a lock. A request that finds the
model idle is handed to its thread at once; those that come while it works wait, and go together when it is done.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NamedTuple

from servegraph.errors import Refusal
from servegraph.serve.options import DEFAULT_TIMEOUT_S, DEFAULT_WAITING

Outcome = bytes | Exception
Answer = Callable[[Sequence[Any]], list[Outcome]]
Share = Callable[[deque["Job"]], int]

_SWEEP_INTERVAL_S = 1.0


@dataclass(frozen=True)
class LaneLimits:
    """How many requests may wait, how long an answer may take, and how many calls run at once."""

    waiting: int = DEFAULT_WAITING
    timeout_s: float = DEFAULT_TIMEOUT_S
    threads: int = 1


class Job:
    """A request in the line; `done` is called once with its answer."""

    __slots__ = ("deadline_s", "done", "request")

    def __init__(self, request: Any, done: Callable[[Outcome], None], deadline_s: float) -> None:
        """Keep the three."""
        self.request = request
        self.done: Callable[[Outcome], None] | None = done
        self.deadline_s = deadline_s

    def finish(self, outcome: Outcome) -> None:
        """Pass the answer on, unless the request has had one."""
        done, self.done = self.done, None
        if done is not None:
            done(outcome)


class _Call(NamedTuple):
    """What a thread is given: the requests of one call, and where the answers go."""

    answer: Answer
    jobs: list[Job]
    loop: asyncio.AbstractEventLoop
    deliver: Callable[[list[Job], list[Outcome]], None]


class Lane:
    """The threads in which `answer` runs, for one request or for the first `share(waiting)` that wait."""

    def __init__(self, answer: Answer, share: Share, limits: LaneLimits, name: str) -> None:
        """Start the threads; they end when nothing refers to the lane any more."""
        self._answer = answer
        self._share = share
        self._limits = limits
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._idle = limits.threads
        self._is_scheduled = False
        self._is_swept = False
        calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._calls = calls
        for _ in range(limits.threads):
            threading.Thread(target=_work, args=(calls,), name=name, daemon=True).start()
        weakref.finalize(self, _end, calls, limits.threads)

    @property
    def load(self) -> tuple[int, int]:
        """How many requests wait, and how many run."""
        return len(self._waiting), len(self._running)

    def ask(self, request: Any, done: Callable[[Outcome], None]) -> None:
        """Put `request` in the line. Call this in the thread of a running event loop, where `done` is called too.

        Raises:
            Refusal: the line is full (code `RESOURCE_EXHAUSTED`).
        """
        if len(self._waiting) >= self._limits.waiting:
            raise Refusal(
                f"{len(self._waiting)} requests wait for this model already.",
                code="RESOURCE_EXHAUSTED",
                fix="Try again shortly, or send fewer at once.",
            )
        loop = asyncio.get_running_loop()
        self._waiting.append(Job(request, done, loop.time() + self._limits.timeout_s))
        if self._idle and not self._is_scheduled:
            # Not at once: what else has come in this turn of the loop joins the call.
            self._is_scheduled = True
            loop.call_soon(self._dispatch, loop)
        if not self._is_swept:
            self._is_swept = True
            loop.call_later(_SWEEP_INTERVAL_S, self._sweep, loop)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_scheduled = False
        while self._idle and self._waiting:
            count = self._share(self._waiting) if len(self._waiting) > 1 else 1
            jobs = [self._waiting.popleft() for _ in range(count)]
            self._running.update(jobs)
            self._idle -= 1
            self._calls.put(_Call(self._answer, jobs, loop, self._deliver))

    def _deliver(self, jobs: list[Job], outcomes: list[Outcome]) -> None:
        self._idle += 1
        self._running.difference_update(jobs)
        if self._waiting:
            self._dispatch(asyncio.get_running_loop())  # first, so that the thread works while answers are sent
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.finish(outcome)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those whose time is up; a call that runs cannot be stopped, its answer is then dropped."""
        now_s = loop.time()
        late = [job for job in (*self._waiting, *self._running) if job.deadline_s <= now_s]
        if late:
            self._waiting = deque(job for job in self._waiting if job.deadline_s > now_s)
        for job in late:
            job.finish(
                Refusal(f"No answer within {self._limits.timeout_s:g} s.", code="DEADLINE_EXCEEDED", fix="Try again.")
            )
        self._is_swept = bool(self._waiting or self._running)
        if self._is_swept:
            loop.call_later(_SWEEP_INTERVAL_S, self._sweep, loop)


def _work(calls: SimpleQueue[_Call | None]) -> None:
    """Run calls until told to end. Holds nothing of a lane between two of them."""
    while (call := calls.get()) is not None:
        try:
            outcomes = call.answer([job.request for job in call.jobs])
        except Exception as exc:  # a defect: whoever waits must hear of it
            outcomes = [exc] * len(call.jobs)
        try:
            call.loop.call_soon_threadsafe(call.deliver, call.jobs, outcomes)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return
        del call, outcomes


def _end(calls: SimpleQueue[_Call | None], threads: int) -> None:
    for _ in range(threads):
        calls.put(None)
