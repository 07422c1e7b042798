"""What a classifier answers with: a probability for each class, or that of the second of two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-2  # of a sum in half precision


def of_each_class(outputs: NDArray[Any], classes: int) -> NDArray[Any] | None:
    """Return the probabilities [rows, classes] that a model answered with, None where its outputs are none."""
    if outputs.ndim == 2 and outputs.shape[1] == 1 and classes == 2:
        outputs = np.hstack([1 - outputs, outputs])
    if outputs.ndim != 2 or outputs.shape[1] != classes:
        return None
    if outputs.min() < 0 or abs(outputs.sum(axis=1) - 1).max() > _ROUNDING:
        return None
    return outputs
