"""What of a server may be set for a model, and in which order it is tried."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from servegraph.serve.options import DEFAULT_BATCH_ROWS


@dataclass(frozen=True)
class Settings:
    """How a server runs a model; None is TensorFlow's own default.

    `batch_rows` are the rows of a shared call, 1 for none. oneDNN and the threads are the process's, not a model's.
    """

    batch_rows: int = DEFAULT_BATCH_ROWS
    onednn: bool | None = None
    intra_op_threads: int | None = None
    inter_op_threads: int | None = None

    def arguments(self) -> list[str]:
        """Return what `servegraph serve` is given."""
        return ["--batch-rows", str(self.batch_rows)]

    def environment(self) -> dict[str, str]:
        """Return the variables that TensorFlow reads when it is imported."""
        found = {
            "TF_ENABLE_ONEDNN_OPTS": None if self.onednn is None else str(int(self.onednn)),
            "TF_NUM_INTRAOP_THREADS": self.intra_op_threads,
            "TF_NUM_INTEROP_THREADS": self.inter_op_threads,
        }
        return {name: str(value) for name, value in found.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the settings, and how to start a server with them."""
        return {**asdict(self), "arguments": self.arguments(), "environment": self.environment()}


class Change(NamedTuple):
    """A change to try."""

    name: str
    settings: Settings


def changes(settings: Settings, cpus: int, *, is_batched: bool) -> list[Change]:
    """Return the single changes to `settings` that can help on so many CPUs, the likeliest first."""
    found = [Change("oneDNN off", replace(settings, onednn=False))]
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
