"""What the default trainer may be told, judged without Keras: before anything runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from servegraph.errors import InputError


@dataclass(frozen=True)
class Hyperparameters:
    """What `hyperparameters` may set. `hidden_units` are layer widths, `learning_rate` is Adam's."""

    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 2e-3
    hidden_units: tuple[int, ...] = (128, 64)
    embedding_width: int = 8
    dropout: float = 0.2


def parse_hyperparameters(given: dict[str, Any]) -> Hyperparameters:
    """Return the hyperparameters, numbers that came as floats through a pipeline made whole again.

    Raises:
        InputError: an unknown name, or a value of the wrong kind or range (code `BAD_HYPERPARAMETER`).
    """
    known = {f.name: f.default for f in fields(Hyperparameters)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise InputError(
                f"The default trainer has no hyperparameter {name!r}.",
                code="BAD_HYPERPARAMETER",
                fix=f"It has {', '.join(known)}.",
            )
        try:
            if name == "hidden_units":
                if not isinstance(value, list | tuple):
                    raise TypeError(value)
                values[name] = tuple(_whole(width) for width in value)
            else:
                values[name] = _whole(value) if isinstance(known[name], int) else float(value)
        except (TypeError, ValueError, OverflowError) as exc:
            raise InputError(
                f"The hyperparameter {name} is {value!r}.",
                code="BAD_HYPERPARAMETER",
                fix=f"Default: {known[name]}.",
            ) from exc
    chosen = Hyperparameters(**values)
    if min(chosen.epochs, chosen.batch_size, chosen.embedding_width, *chosen.hidden_units) < 1 or not (
        0 <= chosen.dropout < 1 and 0 < chosen.learning_rate < math.inf
    ):
        raise InputError(f"A hyperparameter is out of range: {chosen}.", code="BAD_HYPERPARAMETER")
    return chosen


def _whole(value: Any) -> int:
    if isinstance(value, bool) or float(value) != int(value):
        raise ValueError(value)
    return int(value)
