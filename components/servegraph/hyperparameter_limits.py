"""Which numbers a hyperparameter takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from servegraph.errors import InputError


@dataclass(frozen=True)
class Limits:
    """`words` go after "Give"; `hold` of a number, and where it is `whole`, there is none behind the point."""

    words: str
    hold: Callable[[float], bool]
    whole: bool = False


COUNT = Limits("a whole number of at least 1", lambda value: 1 <= value < math.inf, whole=True)
SEED = Limits("a whole number of at least 0", lambda value: 0 <= value < math.inf, whole=True)
POSITIVE = Limits("a finite number above 0", lambda value: 0 < value < math.inf)
SHARE = Limits("a number of at least 0 and below 1", lambda value: 0 <= value < 1)


def limited(name: str, value: Any, limits: Limits, default: Any) -> Any:
    """Return the number: an int where it is to be whole, also if it came as a float through a pipeline.

    Raises:
        InputError: it is no number, or outside of the limits (code `BAD_HYPERPARAMETER`).
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not limits.hold(number) or (limits.whole and not number.is_integer()):
        raise bad(name, value, limits.words, default)
    return int(number) if limits.whole else number


def bad(name: str, value: Any, wanted: str, default: Any) -> InputError:
    """Return the error for a value that is not what is `wanted`."""
    return InputError(
        f"The hyperparameter {name} is {value!r}.",
        code="BAD_HYPERPARAMETER",
        fix=f"Give {wanted}; the default is {default}.",
    )
