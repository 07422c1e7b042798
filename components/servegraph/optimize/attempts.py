"""Drafts on disk: what a climb writes and asks on its way, and the best of it so far."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from servegraph.answers import gate
from servegraph.answers.ask import Loader
from servegraph.answers.evidence import Evidence
from servegraph.answers.gate import Loss
from servegraph.answers.tolerance import Tolerance
from servegraph.errors import ModelError
from servegraph.optimize.terms import Written, directory_bytes
from servegraph.rewriting import draft_writer
from servegraph.rewriting.draft import Draft


@dataclass
class Attempts:
    """Writes drafts into a workspace and has them judged; `best` is what the next one is made of."""

    tolerance: Tolerance
    workspace: Path
    best: Written
    evidence: Evidence = field(default_factory=lambda: Evidence((), {}))
    asking_s: float = 0.0
    _writes: int = 0
    _ahead: dict[int, Written] = field(default_factory=dict)  # by the draft's id: written before they are asked for

    def write(self, draft: Draft, *, hollow: bool = False) -> Written:
        """Write a draft, not asked yet; a `hollow` one, whose size counts alone, cannot be asked."""
        written = self._ahead.pop(id(draft), None)
        if written is None:
            self.forget_ahead()  # the climb goes another way
            written = self._write(draft, self.best, hollow=hollow)
        return written if hollow else self.filled(written)

    def write_ahead(self, draft: Draft, after: Written, *, hollow: bool) -> Written:
        """Write a draft that `write` will be called for if `after` becomes the best."""
        written = self._ahead[id(draft)] = self._write(draft, after, hollow=hollow)
        return written

    def fill_ahead(self, written: Written) -> Written:
        """Fill what was written ahead."""
        if id(written.draft) in self._ahead:
            self._ahead[id(written.draft)] = written = self.filled(written)
        return written

    def forget_ahead(self) -> None:
        """Discard what was written ahead, and not needed."""
        while self._ahead:
            self.discard(self._ahead.popitem()[1])

    def filled(self, written: Written) -> Written:
        """Return a draft that may be hollow with its variables."""
        if written.is_hollow:
            draft_writer.fill(written.draft, written.path)
        return replace(written, is_hollow=False)

    def judged(self, written: Written, loss: Loss, loaders: Sequence[Loader] | None = None) -> Written:
        """Ask a draft that was written, through the first loader that takes the original if no others are named."""
        started = time.monotonic()
        try:
            found = gate.measure(written.path, self.evidence, self.evidence.loaders[:1] if loaders is None else loaders)
            objection = gate.objection(found, self.evidence, loss, self.tolerance)
        except (ModelError, ValueError) as exc:
            found, objection = [], str(exc)
        self.asking_s += time.monotonic() - started
        return replace(written, measured=found, objection=objection)

    def take(self, found: Written) -> Written:
        """Make this the best, and return what was the best before."""
        previous, self.best = self.best, found
        return previous

    def discard(self, written: Written) -> None:
        """Remove a draft, but never the original."""
        if self._is_ours(written):
            shutil.rmtree(written.path)

    def _write(self, draft: Draft, after: Written, *, hollow: bool) -> Written:
        self._writes += 1
        path = self.workspace / str(self._writes)
        # A file of the user's model gets no second name.
        before = (after.draft, after.path) if self._is_ours(after) and (hollow or not after.is_hollow) else None
        draft_writer.write(draft, path, before, hollow=hollow)
        return Written(draft, path, directory_bytes(path), is_hollow=hollow)

    def _is_ours(self, written: Written) -> bool:
        return written.path.parent == self.workspace
