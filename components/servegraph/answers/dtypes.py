"""The element types of requests and answers as numpy types; those numpy lacks come from ml_dtypes, as in TensorFlow."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from servegraph.savedmodel.dtypes import BY_NAME


def numpy_type(dtype: str) -> np.dtype[Any]:
    """Return numpy's type for TensorFlow's name of one; text is objects. Raises TypeError where there is none."""
    if dtype == "string":
        return np.dtype(object)
    if dtype not in BY_NAME or not (dtype in np.sctypeDict or hasattr(ml_dtypes, dtype)):
        raise TypeError(f"numpy has no dtype {dtype}")
    return np.dtype(getattr(ml_dtypes, dtype, dtype))


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether it is a real floating type. numpy itself does not know bfloat16 and most of 8 bits as such."""
    return dtype.name.startswith(("float", "bfloat"))


def as_floats(values: NDArray[Any]) -> NDArray[Any]:
    """Return floats of all sizes as float64, and other values as they are."""
    with np.errstate(invalid="ignore"):  # a signalling NaN of bfloat16
        return values.astype(np.float64) if is_float(values.dtype) else values


def is_text(dtype: np.dtype[Any]) -> bool:
    """Whether values are bytes or text."""
    return dtype.kind in "OSU"
