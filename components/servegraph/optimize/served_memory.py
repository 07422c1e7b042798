"""The memory that a model takes of its own once it is served, against another: each alone in a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from servegraph.answers.ask import Servable
from servegraph.answers.child import in_child
from servegraph.answers.evidence import Question
from servegraph.answers.samples import Samples
from servegraph.machines.sizes import format_size

_STATUS = Path("/proc/self/status")


def objection(original: Path, changed: Path, question: Question) -> str:
    """Return that a model takes more memory than the one it was made from, empty where it does not, or none can say.

    Raises:
        ModelError: one of them cannot be loaded or asked.
    """
    before, after = (
        in_child(_taken_bytes, path, question.tags, question.signature, question.samples, question.loader)
        for path in (original, changed)
    )
    if before is None or after is None or after <= before:
        return ""
    return f"takes {format_size(after)} of memory when it is served, the original {format_size(before)}"


def _taken_bytes(path: Path, tags: tuple[str, ...], signature: str, samples: Samples, loader: Any) -> int | None:
    """Runs in a child: what one model adds, loaded and asked once.

    Pages of TensorFlow's library do not count: the first model that runs a kernel brings them in for all.
    """
    before = _own_bytes()
    with Servable(path, tags=tags, loader=loader) as servable:
        servable(signature, next(iter(samples.batches(1))))
        after = _own_bytes()
    return None if before is None or after is None else after - before


def _own_bytes() -> int | None:
    """Return the anonymous resident memory of this process; None where the system does not say (it is no Linux)."""
    if not _STATUS.exists():
        return None
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024 if "RssAnon" in lines else None
