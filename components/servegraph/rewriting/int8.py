"""Eight bits a weight, with a scale for each column or row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from servegraph.rewriting.contents import Content, matrix_rows, numpy_of
from servegraph.rewriting.forms import FLOATS, MOST, Elementwise, Form, Part, Shaped, as_float, binary, cast
from servegraph.rewriting.graph import Nodes
from servegraph.savedmodel.bundle_reader import BundleReader


@dataclass(frozen=True, eq=False)
class Int8(Elementwise):
    """One int8 per weight, and a scale per column or per row of the tensor seen as a matrix.

    Scales are stored as float16 where that pays, and `scale` then has values that float16 holds.
    """

    noise: float
    width: int  # of the matrix
    scale: NDArray[np.float32]  # [1, width] or [rows, 1]
    parts: tuple[Part, ...]
    name: str = "int8"

    def stored(self, content: Content, tensors: BundleReader | None) -> Iterable[Iterator[bytes]]:
        """Yield the bytes of the levels, then of the scales."""
        yield self._levels(content, tensors)
        yield iter([self.scale.astype(numpy_of(self.parts[1].dtype)).tobytes()])

    def _levels(self, content: Content, tensors: BundleReader | None) -> Iterator[bytes]:
        start = 0
        for rows in matrix_rows(content, tensors, self.width):
            scale = self.scale if len(self.scale) == 1 else self.scale[start : start + len(rows)]
            levels = rows / scale
            np.rint(levels, out=levels)
            np.clip(levels, -_INT8_MAX, _INT8_MAX, out=levels)
            yield levels.astype(np.int8).tobytes()
            start += len(rows)

    def decode(self, nodes: Nodes, name: str, stored: list[str], content: Shaped) -> str:
        """Multiply the levels by their scales, which broadcast."""
        levels = cast(nodes, f"{name}/levels", stored[0], "int8", "float32")
        is_half = self.parts[1].dtype == "float16"
        scale = cast(nodes, f"{name}/scale", stored[1], "float16", "float32") if is_half else stored[1]
        return as_float(nodes, name, binary(nodes, f"{name}/scaled", "Mul", levels, scale), content.dtype)


_INT8_MAX = 127
LEAST_WEIGHTS_PER_SCALE = 8
_LEAST_HALF_SCALES = 128  # of fewer the Cast that turns them back takes as much as they save
_COARSER = 1.01  # at most, of the steps between levels, by rounding scales up to float16
_ROWS_MUST_WIN = 0.5  # a scale per row costs more bytes than one per column: only where it halves the noise
_LEAST_ROW = 32
# A depthwise kernel [height, width, channels, multiplier] has its channels in the last two dimensions. In any other
# kernel a scale for each pair of them would serve nine weights, and cost nearly half of what int8 saves.
_DEPTHWISE_RANK, _MOST_MULTIPLIER = 4, 4


def plan_int8(content: Content, tensors: BundleReader | None) -> Form | None:
    """Store one int8 per weight with scales along whichever axis leaves the least noise.

    None for vectors, where a scale would serve too few weights, and where a value is beyond `MOST`.
    """
    if content.dtype not in FLOATS or len(content.shape) < 2 or not prod(content.shape):
        return None
    best: Int8 | None = None
    widths = [content.shape[-1]]
    if len(content.shape) == _DEPTHWISE_RANK and content.shape[-1] <= _MOST_MULTIPLIER:
        widths.append(prod(content.shape[-2:]))
    for width in widths:
        rows = prod(content.shape) // width
        columns_max, rows_max = _largest(content, tensors, width)
        if not (columns_max <= MOST["float32"]).all():
            return None
        candidates = []
        if rows >= LEAST_WEIGHTS_PER_SCALE:
            candidates.append((columns_max.reshape(1, -1), 1.0))
        if width == content.shape[-1] and width >= _LEAST_ROW:
            candidates.append((rows_max.reshape(-1, 1), 1 / _ROWS_MUST_WIN))
        for largest, handicap in candidates:
            scale = (largest / _INT8_MAX).astype(np.float32)
            scale = np.where(scale > 0, scale, np.float32(1))
            # Rounding to a step of s is off by s²/12 in the mean; where all weights are 0 it is not off at all.
            noise = float(np.mean(np.square(np.where(largest > 0, scale, 0), dtype=np.float64))) / 12
            if best is None or noise * handicap < best.noise:
                scale, dtype = _shorter(scale)
                parts = (Part("", "int8", content.shape), _scale_part(scale, dtype, content.shape, width))
                best = Int8(noise, width, scale, parts)
    return best


def _shorter(scale: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """Return scales that float16 holds and its name; as they are, and float32, where that saves or holds too little.

    Rounded up, so that the largest weight still has a level.
    """
    with np.errstate(over="ignore"):
        nearest = scale.astype(np.float16)
    above = np.nextafter(nearest, np.float16(np.inf))
    half = np.where(nearest < scale, above, nearest).astype(np.float32)
    if scale.size < _LEAST_HALF_SCALES or (half > _COARSER * scale).any():
        return scale, "float32"
    return half, "float16"


def _scale_part(scale: NDArray[np.float32], dtype: str, shape: tuple[int, ...], width: int) -> Part:
    """Return the part of the scales, in a shape that broadcasts against the tensor's."""
    if len(scale) > 1:
        return Part(":scale", dtype, (*shape[:-1], 1))
    return Part(":scale", dtype, (width,) if width == shape[-1] else shape[-2:])


def _largest(
    content: Content, tensors: BundleReader | None, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the largest magnitude in each column, and in each row, of the tensor as a matrix of this width."""
    columns = np.zeros(width, np.float32)
    rows_max = []
    for rows in matrix_rows(content, tensors, width):
        magnitudes = np.abs(rows)
        np.maximum(columns, magnitudes.max(axis=0), out=columns)
        rows_max.append(magnitudes.max(axis=1))
    return columns, np.concatenate(rows_max)
