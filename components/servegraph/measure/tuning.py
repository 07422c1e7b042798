"""Which settings of a server are tried for a model, and in which order."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import NamedTuple

from servegraph.serve.settings import DEFAULT_BATCH_ROWS, Settings


class Change(NamedTuple):
    """A change to try."""

    name: str
    settings: Settings


def changes(settings: Settings, cpus: int, *, is_batched: bool, may_round: bool = False) -> list[Change]:
    """Return the single changes to `settings` that can help on so many CPUs, the likeliest first.

    `may_round`: whether bfloat16, which changes the answers, is among them.
    """
    found = [Change("bfloat16", replace(settings, bfloat16=True))] if may_round else []
    found.append(Change("oneDNN off", replace(settings, onednn=False)))
    if cpus > 1:
        one = replace(settings, intra_op_threads=1, inter_op_threads=1)
        found.append(Change("one TensorFlow thread", one))
    if is_batched:
        found.append(Change("no shared calls", replace(settings, batch_rows=1)))
        found.append(Change("larger shared calls", replace(settings, batch_rows=4 * DEFAULT_BATCH_ROWS)))
    return found


def combined(settings: Settings, change: Settings, base: Settings) -> Settings:
    """Return `settings` with what `change` has otherwise than `base`."""
    names = (name for name, value in asdict(change).items() if value != asdict(base)[name])
    return replace(settings, **{name: getattr(change, name) for name in names})
