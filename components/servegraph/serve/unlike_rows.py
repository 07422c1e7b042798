"""Made-up records unlike each other where a model may look at its neighbours: flags, lengths, padding, extremes."""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping

import numpy as np

from servegraph.serve.arrays import Array

_STEPS = range(4)
# None is 0: of silence, or one color, some models answer what rounding left of it, in any company another.
_FLOAT_FACTORS = (100.0, -10.0, 0.01, np.nan)
_INT_FACTORS = (100, 10, 3, 1)
_BYTE_FACTORS = (255, 100, 30, 1)
_PADDED = (0.25, 0.75)
_BETWEEN_WORDS = (string.punctuation + string.whitespace).encode()


def unlike_rows(inputs: Mapping[str, Array], encoded: Collection[str]) -> list[dict[str, Array]]:
    """Return requests of one row each, made of the first row of `inputs` and unlike it.

    `encoded` are the inputs of which is known what they must hold, such as ids of a table: those are padded only.
    """
    first = {name: array[:1] for name, array in inputs.items()}
    stepped = [
        {name: array if name in encoded else _stepped(array, step) for name, array in first.items()} for step in _STEPS
    ]
    padded = [{name: _padded(array, share) for name, array in first.items()} for share in _PADDED]
    # In turn: of a model that takes long the first few alone are asked.
    return [row for pair in zip(stepped, padded, strict=False) for row in pair] + stepped[len(padded) :]


def _stepped(array: Array, step: int) -> Array:
    """Return what differs from step to step in whatever the whole of a row may be asked for."""
    if array.dtype == np.bool_:
        return np.full_like(array, step % 2)
    if array.dtype == object:  # texts, of more words whatever ends a word
        texts: Array = array + (np.array(_BETWEEN_WORDS, object) + array) * step
        return texts
    if array.dtype.kind not in "iu":
        return (array * _FLOAT_FACTORS[step]).astype(array.dtype)
    if array.ndim == 1:  # a length, a number of results
        return np.full_like(array, step)
    factors = _BYTE_FACTORS if array.dtype == np.uint8 else _INT_FACTORS
    return (array * min(factors[step], np.iinfo(array.dtype).max)).astype(array.dtype)


def _padded(array: Array, share: float) -> Array:
    """Return an array whose rows end in zeros, as sequences do that are shorter than others."""
    if array.ndim < 2 or array.dtype == object:
        return array
    shorter = array.copy()
    shorter[:, array.shape[1] - int(share * array.shape[1]) :] = 0
    return shorter
