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


@dataclass(frozen=True)
class Hyperparameters:
    """What `hyperparameters` may set. `hidden_units` are layer widths, `learning_rate` is Adam's."""

    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 2e-3
    hidden_units: tuple[int, ...] = (128, 64)
    embedding_width: int = 8
    dropout: float = 0.2


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
            values[name] = limited(name, value, _LIMITS[name], known[name])
    return Hyperparameters(**values)


def _widths(name: str, value: Any, default: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise bad(name, value, "a list of whole numbers", list(default))
    return tuple(limited(f"{name}[{at}]", width, COUNT, list(default)) for at, width in enumerate(value))
