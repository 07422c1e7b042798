"""A line about what takes long: a model can wait for ever, as in a loop without an end, and TensorFlow then does too.

There is no time limit: nobody knows how long a model may take. Whoever waits is to know for what, and may give up.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from servegraph.printable import printable

FIRST_S = 30.0  # until the first line; each next one comes after twice the time
_POLL_S = 0.5
_CLEAR_LINE = "\r\x1b[2K"  # a progress bar may be there, of another process


@dataclass(eq=False)
class _Wait:
    what: str
    tell: Callable[[str], None]
    due_s: float
    started_s: float = field(default_factory=time.monotonic)


_waits: list[_Wait] = []
_starting = threading.Lock()
_watcher: threading.Thread | None = None


def _to_stderr(line: str) -> None:
    """Print a line that is no part of what a verb answers."""
    clear = _CLEAR_LINE if sys.stderr.isatty() else ""
    print(f"{clear}{printable(line)} Ctrl-C ends it.\n", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting_for(what: str, tell: Callable[[str], None] = _to_stderr, first_s: float = FIRST_S) -> Iterator[None]:
    """Let `tell` have a line after `first_s` seconds in the block, and after twice, four times, … as long."""
    _watch()
    wait = _Wait(what, tell, first_s)
    _waits.append(wait)
    try:
        yield
    finally:
        _waits.remove(wait)


def waited_for() -> list[str]:
    """Return what this process waits for now."""
    return [wait.what for wait in _waits]


def _watch() -> None:
    """Start the one thread that looks on, unless it runs: it does not come along where a process forks."""
    global _watcher
    if _watcher is None or not _watcher.is_alive():
        with _starting:
            if _watcher is None or not _watcher.is_alive():
                _watcher = threading.Thread(target=_look_on, name="patience", daemon=True)
                _watcher.start()


def _look_on() -> None:
    while True:
        time.sleep(_POLL_S)
        for wait in [*_waits]:
            passed_s = time.monotonic() - wait.started_s
            if passed_s >= wait.due_s:
                wait.due_s = 2 * passed_s
                wait.tell(f"After {passed_s:.0f} s still waiting for {wait.what}.")
