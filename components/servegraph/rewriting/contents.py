"""What is written under a key of the checkpoint: where the values come from, without holding them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from servegraph.savedmodel.bundle_index import SliceSpec, TensorEntry
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.dtypes import BY_NAME

CHUNK_BYTES = 1 << 20
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
Rows = Iterator[NDArray[np.float32]]


def numpy_of(dtype: str) -> np.dtype[Any]:
    """Return numpy's dtype of TensorFlow's name for one of fixed size; of a quantized type plain bytes.

    Raises:
        TypeError: its elements have no fixed size.
    """
    if dtype in np.sctypeDict or hasattr(ml_dtypes, dtype):
        return np.dtype(getattr(ml_dtypes, dtype, dtype))
    if dtype not in BY_NAME or (size := BY_NAME[dtype].size_bytes) is None:
        raise TypeError(f"numpy has no dtype {dtype}")
    return np.dtype((np.void, size))


@dataclass(frozen=True)
class Stored:
    """A tensor of the original checkpoint; with `spec` the slice of a partitioned one that is stored as a piece."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    spec: SliceSpec | None = None

    @property
    def origins(self) -> tuple[str, ...]:
        """The keys of the original checkpoint that it comes from."""
        return (self.key,)

    @staticmethod
    def whole(entry: TensorEntry) -> Stored:
        """Return the tensor of an index entry."""
        return Stored(entry.key, entry.dtype, entry.shape)

    def entry(self, tensors: BundleReader) -> TensorEntry:
        """Return what the index says of the tensor or slice."""
        whole = tensors.entries[self.key]
        if self.spec is None:
            return whole
        return next(piece for piece in tensors.pieces(whole) if piece.slices == (self.spec,))

    def chunks(self, tensors: BundleReader | None) -> Iterator[bytes]:
        """Yield the bytes in order."""
        assert tensors is not None  # what is stored is in a checkpoint
        entry = self.entry(tensors)
        return tensors.chunks(entry) if self.spec is None else tensors.stored_chunks(entry)


class _Derived:
    """What is made of another tensor comes from where that one comes from."""

    of: Stored | Scaled | Literal | Rounded

    @property
    def origins(self) -> tuple[str, ...]:
        """Those of the tensor."""
        return self.of.origins


@dataclass(frozen=True, eq=False)
class Scaled(_Derived):
    """A float32 tensor times factors that broadcast against its last dimensions, as many as `by` has, in float32."""

    of: Stored | Literal
    by: NDArray[np.float32]

    @property
    def dtype(self) -> str:
        """That of the tensor."""
        return self.of.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the tensor."""
        return self.of.shape

    def chunks(self, tensors: BundleReader | None) -> Iterator[bytes]:
        """Yield the bytes in order."""
        factors = np.broadcast_to(self.by, self.of.shape[-self.by.ndim :]).ravel()
        for rows in matrix_rows(self.of, tensors, factors.size):
            yield (rows * factors).astype("<f4").tobytes()


@dataclass(frozen=True, eq=False)
class Literal:
    """Values held in memory: computed while folding, or a constant of the graph; text as an array of bytes objects.

    `origins` are the keys of the original checkpoint that they were computed from.
    """

    values: NDArray[Any]
    origins: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """TensorFlow's name of the dtype."""
        return "string" if self.values.dtype == object else str(self.values.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return tuple(self.values.shape)

    def chunks(self, _tensors: BundleReader | None) -> Iterator[bytes]:
        """Yield the bytes in order."""
        values = np.ascontiguousarray(self.values).reshape(-1)
        at_once = max(CHUNK_BYTES // values.itemsize, 1)
        for start in range(0, values.size, at_once):
            yield values[start : start + at_once].tobytes()


@dataclass(frozen=True, eq=False)
class Rounded(_Derived):
    """A float32 tensor as float16 or bfloat16, rounded as TensorFlow's Cast does: to nearest, ties to even."""

    of: Stored | Scaled | Literal
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the tensor."""
        return self.of.shape

    def chunks(self, tensors: BundleReader | None) -> Iterator[bytes]:
        """Yield the bytes in order."""
        dtype = numpy_of(self.dtype)
        with np.errstate(over="ignore"):  # to infinity, as there
            for rows in typed_rows(self.of, tensors, 1):
                yield rows.astype(dtype).tobytes()


@dataclass(frozen=True, eq=False)
class SomeRows(_Derived):
    """Some rows of a tensor, in their order; `wanted` is bool [rows]."""

    of: Stored | Scaled | Literal | Rounded
    wanted: NDArray[np.bool_]

    @property
    def dtype(self) -> str:
        """That of the tensor."""
        return self.of.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the tensor, with the rows that are left."""
        return (int(self.wanted.sum()), *self.of.shape[1:])

    def chunks(self, tensors: BundleReader | None) -> Iterator[bytes]:
        """Yield the bytes in order."""
        start = 0
        for rows in typed_rows(self.of, tensors, prod(self.of.shape[1:])):
            yield rows[self.wanted[start : start + len(rows)]].tobytes()
            start += len(rows)


Content = Stored | Scaled | Literal | Rounded | SomeRows


def digest(values: NDArray[Any]) -> str:
    """Return what tells values from all others: of equal values it is equal."""
    found = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    if values.dtype == object:
        for text in values.ravel():
            found.update(len(text).to_bytes(8, "little") + text)
    else:
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()[:16]


def size_bytes(content: Content) -> int:
    """Return the size of a tensor; of text held in memory that of its characters."""
    if content.dtype == "string" and isinstance(content, Literal):
        return sum(map(len, content.values.ravel()))
    return prod(content.shape) * numpy_of(content.dtype).itemsize


def typed_rows(content: Content, tensors: BundleReader | None, width: int) -> Iterator[NDArray[Any]]:
    """Yield the tensor as arrays [rows, width] of its own dtype, a bounded number of rows at a time."""
    dtype = numpy_of(content.dtype)
    row_bytes = dtype.itemsize * width
    block_bytes = max(CHUNK_BYTES // row_bytes, 1) * row_bytes
    pending = bytearray()
    for chunk in content.chunks(tensors):
        if not pending and len(chunk) % row_bytes == 0 and len(chunk) <= block_bytes:
            yield np.frombuffer(chunk, dtype).reshape(-1, width)
            continue
        pending += chunk
        whole = len(pending) // block_bytes * block_bytes
        if whole:
            block, pending = bytes(pending[:whole]), pending[whole:]
            for start in range(0, whole, block_bytes):
                yield np.frombuffer(block, dtype, block_bytes // dtype.itemsize, start).reshape(-1, width)
    if pending:
        yield np.frombuffer(bytes(pending), dtype).reshape(-1, width)


def matrix_rows(content: Content, tensors: BundleReader | None, width: int) -> Rows:
    """Yield a float tensor as float32 arrays [rows, width], a bounded number of rows at a time.

    Of a `Rounded` one come the values before rounding: a smaller form is then not rounded twice.
    """
    for rows in typed_rows(content.of if isinstance(content, Rounded) else content, tensors, width):
        with np.errstate(over="ignore"):  # a float64 beyond its range is infinite, which no plan takes
            found = rows.astype(np.float32, copy=False)
        yield found


def read_values(content: Content, tensors: BundleReader | None) -> NDArray[Any]:
    """Return the whole tensor."""
    content_bytes = b"".join(content.chunks(tensors))
    return np.frombuffer(content_bytes, numpy_of(content.dtype)).reshape(content.shape)
