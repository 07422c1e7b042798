"""Drafts on disk: what a climb writes and asks on its way, and the best of it so far."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from servegraph.answers import gate
from servegraph.answers.ask import Loader
from servegraph.answers.evidence import Evidence
from servegraph.answers.gate import Loss
from servegraph.answers.tolerance import Tolerance
from servegraph.errors import ModelError
from servegraph.optimize.terms import Written, directory_bytes
from servegraph.rewriting import draft as drafts
from servegraph.rewriting.draft import Draft


@dataclass
class Attempts:
    """Writes drafts into a workspace and has them judged; `best` is what the next one is made of."""

    evidence: Evidence
    tolerance: Tolerance
    workspace: Path
    best: Written
    asking_s: float = 0.0
    _writes: int = 0

    def write(self, draft: Draft, *, hollow: bool = False) -> Written:
        """Write a draft, not asked yet; a `hollow` one, whose size counts alone, cannot be asked."""
        self._writes += 1
        path = self.workspace / str(self._writes)
        before = (self.best.draft, self.best.path) if self._is_ours(self.best) else None
        drafts.write(draft, path, before, hollow=hollow)
        return Written(draft, path, directory_bytes(path), [], "")

    def judged(self, written: Written, loss: Loss, loaders: Sequence[Loader] | None = None) -> Written:
        """Ask a draft that was written, through the first loader that takes the original if no others are named."""
        started = time.monotonic()
        try:
            found = gate.measure(written.path, self.evidence, self.evidence.loaders[:1] if loaders is None else loaders)
            objection = gate.objection(found, self.evidence, loss, self.tolerance)
        except (ModelError, ValueError) as exc:
            found, objection = [], str(exc)
        self.asking_s += time.monotonic() - started
        return Written(written.draft, written.path, written.size, found, objection)

    def take(self, found: Written) -> Written:
        """Make this the best, and return what was the best before."""
        previous, self.best = self.best, found
        return previous

    def discard(self, written: Written) -> None:
        """Remove a draft, but never the original."""
        if self._is_ours(written):
            shutil.rmtree(written.path)

    def _is_ours(self, written: Written) -> bool:
        return written.path.parent == self.workspace
