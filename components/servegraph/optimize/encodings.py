"""Forms in which a float32 weight can be stored: smaller on disk, decoded once while the model is restored.

Serving computes in float32 as before, so a stored form costs no latency, and only standard operations read it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.optimize.graph import Nodes
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.bundle_writer import BundleWriter

CHUNK_BYTES = 1 << 20
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_INT8_MAX = 127
_FLOAT, _HALF, _INT8 = (kind.as_datatype_enum for kind in (tf.float32, tf.float16, tf.int8))


@dataclass(frozen=True)
class Encoding:
    """`parts` are (suffix of the key, dtype enum) of the tensors stored for one; `decode` adds nodes that join them.

    `write` stores a tensor of the source; `fits` says whether this tensor can be stored so at all.
    """

    parts: tuple[tuple[str, int], ...]
    decode: Callable[[Nodes, str, list[str]], str]
    write: Callable[[TensorEntry, BundleReader, BundleWriter], None]
    fits: Callable[[TensorEntry, BundleReader], bool]


def _decode_float16(nodes: Nodes, name: str, stored: list[str]) -> str:
    return _cast(nodes, f"{name}/float32", stored[0], _HALF)


def _write_float16(entry: TensorEntry, source: BundleReader, writer: BundleWriter) -> None:
    halves = (row.astype(np.float16).tobytes() for row in _float_rows(entry, source))
    writer.add(entry.key, "float16", entry.shape, halves)


def _fits_float16(entry: TensorEntry, source: BundleReader) -> bool:
    # Also false for NaN and infinity, which a comparison with a number refuses.
    return all(bool((np.abs(row) <= _FLOAT16_MAX).all()) for row in _float_rows(entry, source))


def _decode_int8(nodes: Nodes, name: str, stored: list[str]) -> str:
    node = NodeDef(
        name=f"{name}/scaled", op="Mul", input=[_cast(nodes, f"{name}/float32", stored[0], _INT8), stored[1]]
    )
    node.attr["T"].type = _FLOAT
    nodes[node.name] = node
    return f"{name}/scaled"


def _write_int8(entry: TensorEntry, source: BundleReader, writer: BundleWriter) -> None:
    """Store one int8 per weight and one float32 scale per output channel, which is the last dimension."""
    largest = np.zeros(entry.shape[-1], np.float32)
    for rows in _float_rows(entry, source):
        np.maximum(largest, np.abs(rows).max(axis=0), out=largest)
    scale = np.where(largest > 0, largest / _INT8_MAX, 1).astype(np.float32)
    levels = (
        np.clip(np.rint(rows / scale), -_INT8_MAX, _INT8_MAX).astype(np.int8).tobytes()
        for rows in _float_rows(entry, source)
    )
    writer.add(entry.key, "int8", entry.shape, levels)
    writer.add(f"{entry.key}/scale", "float32", (entry.shape[-1],), [scale.tobytes()])


def _fits_int8(entry: TensorEntry, source: BundleReader) -> bool:
    """Whether there are enough weights per scale to gain anything, and all of them are finite."""
    if len(entry.shape) < 2 or prod(entry.shape[:-1]) < _LEAST_WEIGHTS_PER_SCALE:
        return False
    return all(bool(np.isfinite(rows).all()) for rows in _float_rows(entry, source))


_LEAST_WEIGHTS_PER_SCALE = 16

ENCODINGS = {
    "float16": Encoding((("", _HALF),), _decode_float16, _write_float16, _fits_float16),
    "int8": Encoding((("", _INT8), ("/scale", _FLOAT)), _decode_int8, _write_int8, _fits_int8),
}


def _float_rows(entry: TensorEntry, source: BundleReader) -> Iterator[NDArray[np.float32]]:
    """Yield the tensor as arrays [rows, last dimension], a bounded number of rows at a time."""
    width = entry.shape[-1] if entry.shape else 1
    chunk_bytes = max(CHUNK_BYTES // (4 * width), 1) * 4 * width
    pending = b""
    for chunk in source.chunks(entry):
        pending += chunk
        while len(pending) >= chunk_bytes:
            yield np.frombuffer(pending[:chunk_bytes], "<f4").reshape(-1, width)
            pending = pending[chunk_bytes:]
    if pending:
        yield np.frombuffer(pending, "<f4").reshape(-1, width)


def _cast(nodes: Nodes, name: str, tensor: str, source: int) -> str:
    node = NodeDef(name=name, op="Cast", input=[tensor])
    node.attr["SrcT"].type, node.attr["DstT"].type = source, _FLOAT
    nodes[name] = node
    return name
