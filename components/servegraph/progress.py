"""Progress of long work on stderr: a live bar at a terminal, one plain line a step in a log, nothing when quiet."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from servegraph.printable import printable


class Progress:
    """A context manager that counts `total` steps of `what`."""

    def __init__(self, what: str, *, total: int, done: int = 0) -> None:
        """Show nothing yet; `done` steps are counted as finished before."""
        self._what, self._total, self._done = what, total, done
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        """Start a live bar if stderr is a terminal."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, completed=self._done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def under_way(self, note: str) -> None:
        """Say what is being done, at a terminal only; the next step replaces it."""
        if self._bar is not None:
            self._bar.update(self._task, description=self._described(note))

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Count one step, or several, or none; `note` says what was done."""
        self._done += steps
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=self._described(note))
        else:
            print(f"{self._what} {self._done}/{self._total}: {printable(note)}", file=sys.stderr, flush=True)

    def _described(self, note: str) -> str:
        from rich.markup import escape

        return escape(printable(f"{self._what}: {note}"))
