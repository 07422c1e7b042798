"""Four bits a weight: groups of 32 with a float16 scale each, two weights a byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from servegraph.rewriting.contents import Content, matrix_rows, size_bytes
from servegraph.rewriting.forms import (
    FLOATS,
    MOST,
    Elementwise,
    Form,
    Part,
    Shaped,
    add,
    binary,
    cast,
    constant,
    enum,
    reshaped,
)
from servegraph.rewriting.graph import Nodes
from servegraph.savedmodel.bundle_reader import BundleReader

GROUP = 32
_LEAST_WEIGHTS = 2048  # of fewer, what takes two weights out of a byte is larger than what int8 has more
_LEVELS = 7  # from -7 to 7, and -8 where rounding goes there
_OFFSET = 8  # added, so that a level is a number from 0 to 15
# Cutting off the outermost weights of a group makes the steps finer for all others: the better of two is taken.
_REACHES = (1.0, 0.86)
_LARGEST_UNITS = 2.0**15  # of the largest scale: near the most that float16 holds, so that it holds small ones too
_SMALLEST_UNIT = float(np.finfo(np.float32).smallest_normal)  # TensorFlow takes smaller numbers for 0
_COARSER = 1.01  # at most, of the steps between levels, by rounding scales to float16
_COUNTS = 1e-3  # times the median scale: groups of smaller weights, such as rows never trained, may lose theirs


@dataclass(frozen=True, eq=False)
class Int4(Elementwise):
    """Levels of 4 bits; `width` is that of the tensor as a matrix, in whose columns the groups lie.

    With `width` 1 the groups lie along the tensor's last dimension instead. `scale` is [groups, 1, width] in float32,
    stored as float16 in units of `unit`, so that neither large nor small weights are beyond what float16 can hold.
    """

    noise: float
    width: int
    unit: float
    scale: NDArray[np.float32]
    parts: tuple[Part, ...]
    name: str = "int4"

    def stored(self, content: Content, tensors: BundleReader | None) -> Iterable[Iterator[bytes]]:
        """Yield the bytes of the packed levels, then of the scales."""
        yield self._packed(content, tensors)
        yield iter([_in_units(self.scale, self.unit).tobytes()])

    def leading(self, row: int, width: int) -> int:
        """Groups lie along the columns or the rows; a block begins with a group."""
        return row * width // self.width // GROUP

    def of_rows(self, start: int, shape: tuple[int, ...]) -> Int4:
        """Return the form with the scales of the block's groups."""
        begin, end = self.leading(start, shape[1]), -(-(start + shape[0]) * shape[1] // self.width // GROUP)
        return replace(self, scale=self.scale[begin:end])

    def beside_bytes(self, content: Content) -> int:
        """Four times the result, as measured: seven steps, whose leftovers the next tensor does not fit into."""
        return 4 * size_bytes(content)

    def _packed(self, content: Content, tensors: BundleReader | None) -> Iterator[bytes]:
        start = 0
        for groups in _groups(content, tensors, self.width):
            levels = _levels(groups, self.scale[start : start + len(groups)])
            packed = (levels + _OFFSET).astype(np.uint8)
            low, high = packed[:, : GROUP // 2], packed[:, GROUP // 2 :]
            yield (low | high << 4).tobytes()
            start += len(groups)

    def decode(self, nodes: Nodes, name: str, stored: list[str], content: Shaped) -> str:
        """Take the bytes apart and multiply the levels by their scales."""
        half = [
            binary(nodes, f"{name}/{op}", op, stored[0], constant(nodes, f"{name}/{op}/bits", bits, "uint8"), "uint8")
            for op, bits in (("BitwiseAnd", 15), ("RightShift", 4))
        ]
        joined = add(nodes, f"{name}/joined", "ConcatV2", *half, constant(nodes, f"{name}/axis", 1, "int32"))
        joined.attr["N"].i, joined.attr["T"].type, joined.attr["Tidx"].type = 2, enum("uint8"), enum("int32")
        levels = cast(nodes, f"{name}/levels", joined.name, "uint8", "float32")
        centred = binary(nodes, f"{name}/centred", "Sub", levels, constant(nodes, f"{name}/zero", _OFFSET, "float32"))
        units = cast(nodes, f"{name}/units", stored[1], "float16", "float32")
        scale = binary(nodes, f"{name}/scale", "Mul", units, constant(nodes, f"{name}/unit", self.unit, "float32"))
        values = binary(nodes, f"{name}/scaled", "Mul", centred, scale)
        rows = prod(content.shape) // self.width
        if rows % GROUP:
            padded = reshaped(nodes, f"{name}/padded", values, (len(self.scale) * GROUP, self.width), "float32")
            values = _first_rows(nodes, f"{name}/cut", padded, rows)
        values = reshaped(nodes, f"{name}/shaped", values, content.shape, "float32")
        return values if content.dtype == "float32" else cast(nodes, f"{name}/cast", values, "float32", content.dtype)


def plan_int4(content: Content, tensors: BundleReader | None) -> Form | None:
    """Store four bits a weight, in groups along whichever dimension leaves less noise.

    None for small tensors or those with less than a group in either dimension, where a value is beyond `MOST`, and
    where one is so much larger than the others that float16 does not hold the scales of both.
    """
    if content.dtype not in FLOATS or len(content.shape) < 2 or prod(content.shape) < _LEAST_WEIGHTS:
        return None
    width, best = content.shape[-1], None
    ways = [width] if prod(content.shape[:-1]) >= GROUP else []
    if width % GROUP == 0:
        ways.append(1)
    for way in ways:
        scales, error, count = [], 0.0, 0
        for groups in _groups(content, tensors, way):
            largest = np.abs(groups).max(axis=1, keepdims=True)
            if not (largest <= MOST["float32"]).all():
                return None
            scale, group_error = _best_scale(groups, largest)
            scales.append(scale)
            error, count = error + group_error, count + groups.size
        if best is None or error / count < best.noise:
            best = _form(content, way, np.concatenate(scales), error / count)
    return best if best is not None and _holds_scales(best) else None


def _holds_scales(form: Int4) -> bool:
    """Whether the scales that count are stored nearly as they are."""
    stored = _in_units(form.scale, form.unit).astype(np.float32) * np.float32(form.unit)
    counts = form.scale >= _COUNTS * np.median(form.scale)
    return bool((np.maximum(stored, form.scale) <= _COARSER * np.minimum(stored, form.scale))[counts].all())


def _in_units(scale: NDArray[np.float32], unit: float) -> NDArray[np.float16]:
    return (scale / np.float32(unit)).astype(np.float16)


def _form(content: Content, width: int, scale: NDArray[np.float32], noise: float) -> Int4:
    unit = max(float(scale.max()) / _LARGEST_UNITS, _SMALLEST_UNIT)
    parts = (
        Part("", "uint8", (len(scale), GROUP // 2, width)),
        Part(":scale", "float16", (len(scale), 1, width)),
    )
    return Int4(noise, width, unit, scale, parts)


def _best_scale(groups: NDArray[np.float32], largest: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Return the scale of each group, and the sum of the squared errors they leave."""
    best_scale, best_error = largest, np.full(largest.shape, np.inf, np.float64)
    for reach in _REACHES:
        scale = np.where(largest > 0, largest * np.float32(reach / _LEVELS), np.float32(1e-30))
        error = np.square(_levels(groups, scale) * scale - groups, dtype=np.float64).sum(axis=1, keepdims=True)
        better = error < best_error
        best_scale, best_error = np.where(better, scale, best_scale), np.where(better, error, best_error)
    return best_scale.astype(np.float32), float(best_error.sum())


def _levels(groups: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    levels = groups / scale
    np.rint(levels, out=levels)
    return np.clip(levels, -_OFFSET, _LEVELS, out=levels)


def _groups(content: Content, tensors: BundleReader | None, width: int) -> Iterator[NDArray[np.float32]]:
    """Yield arrays [groups, GROUP, width]; the last group is filled up with zeros."""
    pending: NDArray[np.float32] = np.empty((0, width), np.float32)
    for rows in matrix_rows(content, tensors, width):
        pending = np.concatenate([pending, rows]) if len(pending) else rows
        whole = len(pending) // GROUP * GROUP
        if whole:
            yield pending[:whole].reshape(-1, GROUP, width)
            pending = pending[whole:]
    if len(pending):
        yield np.pad(pending, ((0, GROUP - len(pending)), (0, 0))).reshape(1, GROUP, width)


def _first_rows(nodes: Nodes, name: str, tensor: str, rows: int) -> str:
    begin = constant(nodes, f"{name}/begin", [0, 0], "int64")
    size = constant(nodes, f"{name}/size", [rows, -1], "int64")
    node = add(nodes, name, "Slice", tensor, begin, size)
    node.attr["T"].type, node.attr["Index"].type = enum("float32"), enum("int64")
    return name
