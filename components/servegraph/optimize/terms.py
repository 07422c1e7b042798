"""What a climb is for, and the models that it writes on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from servegraph import storage
from servegraph.answers.gate import Measured
from servegraph.answers.tolerance import Tolerance
from servegraph.optimize.rungs import RUNGS, Rung
from servegraph.rewriting.draft import Draft


@dataclass(frozen=True)
class Terms:
    """What the climb is for: a budget (None: only lossless rungs, unless lossy ones are named), and a tolerance."""

    budget_bytes: int | None
    tolerance: Tolerance
    rungs: tuple[Rung, ...]
    climbs_all: bool  # whether lossy rungs are wanted without a budget
    min_count: int = 1  # how often an entry of a vocabulary must be looked up to stay


@dataclass(frozen=True)
class Written:
    """A draft on disk, with what the gate found; a hollow one has no variables yet, but the size that it will have.

    Where the tolerance bears a smaller form for some of the weights alone, `in_full` is what was found of all of them.
    """

    draft: Draft
    path: Path
    size: int
    measured: Sequence[Measured] = ()
    objection: str = ""
    is_hollow: bool = False
    in_full: Written | None = None

    @property
    def worst_agreement(self) -> float | None:
        """The least agreement over the loaders."""
        return min((found.agreement.agreement for found in self.measured), default=None)


def directory_bytes(path: Path) -> int:
    """Return the size of all files below a directory."""
    return sum(file.size_bytes for file in storage.open_dir(path).files())


def rungs_named(names: Sequence[str]) -> tuple[Rung, ...]:
    """Return the rungs of these names, in this order."""
    by_name = {rung.name: rung for rung in RUNGS}
    return tuple(by_name[name] for name in names)
