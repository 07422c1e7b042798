"""Progress of a run on stderr: a live table at a terminal, one line a change in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

_MARKS = {
    "waiting": "·",
    "running": "▸",
    "succeeded": "✓",
    "cached": "✓",
    "skipped": "-",
    "failed": "✗",
    "cancelled": "✗",
}


class ShownStep(Protocol):
    """A step of a run here or elsewhere; `started` is in seconds since 1970."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def status(self) -> str:
        """A key of the marks."""

    @property
    def started(self) -> float:
        """When it started."""

    @property
    def seconds(self) -> float | None:
        """How long it took, None while it has not ended."""


class ShownRun(Protocol):
    """A run here or elsewhere."""

    @property
    def steps(self) -> Sequence[ShownStep]:
        """Its steps in their order."""


class StepDisplay:
    """A context manager whose `show` is called after every change of a run."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._live: Any = None
        self._run: ShownRun | None = None
        self._told: dict[str, str] = {}

    def __enter__(self) -> StepDisplay:
        """Start the live table if stderr is a terminal."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self._live = Live(console=console, get_renderable=self._table, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the table as it stands."""
        if self._live is not None:
            self._live.stop()

    def show(self, run: ShownRun) -> None:
        """Show the state of the run."""
        self._run = run
        if self._live is not None:
            return  # it refreshes itself
        for step in run.steps:
            if step.status not in ("waiting", self._told.get(step.name)):
                self._told[step.name] = step.status
                seconds = f" in {step.seconds:.1f} s" if step.seconds is not None else ""
                print(f"{_MARKS[step.status]} {step.name} {step.status}{seconds}", file=sys.stderr, flush=True)

    def _table(self) -> Any:
        from rich.table import Table

        table = Table(box=None, show_header=False)
        for step in self._run.steps if self._run else []:
            style = {"running": "bold cyan", "succeeded": "green", "cached": "green", "failed": "bold red"}.get(
                step.status, "dim"
            )
            table.add_row(_MARKS[step.status], step.name, _elapsed(step), style=style)
        return table


def _elapsed(step: ShownStep) -> str:
    if step.seconds is not None:
        return f"{step.seconds:6.1f} s"
    return f"{time.time() - step.started:6.1f} s" if step.status == "running" else ""
