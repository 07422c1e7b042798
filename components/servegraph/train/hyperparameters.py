"""What the default trainer may be told, judged without Keras: before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from servegraph.errors import InputError
from servegraph.hyperparameter_limits import COUNT, POSITIVE, SHARE, Limits, bad, limited

_LIMITS: Mapping[str, Limits] = {
    "epochs": COUNT,
    "batch_size": COUNT,
    "learning_rate": POSITIVE,
    "embedding_width": COUNT,
    "dropout": SHARE,
}


LARGEST_BATCH, SMALLEST_BATCH = 256, 8
STEPS_PER_EPOCH = 32  # at least, where the records are enough: with one step an epoch next to nothing is learned


@dataclass(frozen=True)
class Hyperparameters:
    """What `hyperparameters` may set. `hidden_units` are layer widths, `learning_rate` is Adam's.

    Without a `batch_size` it is that of `batch_of`.
    """

    epochs: int = 10
    batch_size: int | None = None
    learning_rate: float = 2e-3
    hidden_units: tuple[int, ...] = (128, 64)
    embedding_width: int = 8
    dropout: float = 0.2

    def batch_of(self, records: int) -> int:
        """Return the batch size for so many records: 256 unless given, of few records less, so that they are learned.

        Then it is the power of two that gives an epoch 32 steps or more, and 8 at least.
        """
        if self.batch_size is not None:
            return self.batch_size
        fitting = 1 << max(records // STEPS_PER_EPOCH, 1).bit_length() - 1
        return min(LARGEST_BATCH, max(SMALLEST_BATCH, fitting))


def defaults() -> dict[str, Any]:
    """Return what the default trainer does where nothing is given."""
    return asdict(Hyperparameters())


def parse_hyperparameters(given: dict[str, Any]) -> Hyperparameters:
    """Return the hyperparameters, numbers that came as floats through a pipeline made whole again.

    Raises:
        InputError: an unknown name, or a value of the wrong kind or range (code `BAD_HYPERPARAMETER`).
    """
    known = defaults()
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise InputError(
                f"The default trainer has no hyperparameter {name!r}.",
                code="BAD_HYPERPARAMETER",
                fix=f"It has {', '.join(known)}.",
            )
        if name == "hidden_units":
            values[name] = _widths(name, value, known[name])
        else:
            default = known[name] or f"{LARGEST_BATCH}, less of few records"
            values[name] = limited(name, value, _LIMITS[name], default)
    return Hyperparameters(**values)


def _widths(name: str, value: Any, default: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise bad(name, value, "a list of whole numbers", list(default))
    return tuple(limited(f"{name}[{at}]", width, COUNT, list(default)) for at, width in enumerate(value))
