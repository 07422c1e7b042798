"""The tensors of a checkpoint (`variables/variables.*` of a SavedModel): listed, read in chunks, verified.

Opening reads the index only; a tensor's bytes are read when asked for, at most one chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from math import prod
from threading import Lock
from types import TracebackType

import google_crc32c

from servegraph.errors import ModelError, StorageError
from servegraph.savedmodel.bundle_index import BundleIndex, SliceSpec, TensorEntry, parse_index
from servegraph.savedmodel.dtypes import BY_NAME
from servegraph.savedmodel.sstable import mask
from servegraph.savedmodel.string_tensors import split_strings, string_checksum, variant_checksum
from servegraph.savedmodel.wire import Malformed
from servegraph.storage.directory import Directory, RandomAccess

VARIABLES_PREFIX = "variables/variables"
# Of 64 KiB to 4 MiB the fastest to read and checksum; from afar a chunk is a request.
CHUNK_BYTES, REMOTE_CHUNK_BYTES = 1 << 20, 1 << 24
READ_AHEAD_BYTES = 1 << 20  # from afar: thousands of small tensors would be as many requests
MAX_INDEX_BYTES = 1 << 30  # ten million tensors; a larger file is not an index
_REWRITE = "Export the model again, or copy the whole directory again from where it was written."


def shard_path(prefix: str, shard: int, shard_count: int) -> str:
    """Return the path of one data file, e.g. `variables/variables.data-00000-of-00001`."""
    return f"{prefix}.data-{shard:05d}-of-{shard_count:05d}"


class BundleReader:
    """Tensors of the checkpoint `prefix` in `directory`, by key.

    Raises:
        ModelError: there is no index (`NO_VARIABLES`) or it is damaged (`INDEX_CORRUPT`); on reading,
            `MISSING_SHARD`, `TRUNCATED_SHARD`, `CRC_MISMATCH`, `BAD_ENTRY_SIZE`.
    """

    def __init__(self, directory: Directory, prefix: str = VARIABLES_PREFIX) -> None:
        """Read the index."""
        self._directory = directory
        self.prefix = prefix
        self.is_local = "://" not in directory.uri  # then tensors may be read by several threads at once
        self._chunk_bytes = CHUNK_BYTES if self.is_local else REMOTE_CHUNK_BYTES
        self._shards: dict[int, RandomAccess] = {}
        self._opening = Lock()
        self.index = _read_index(directory, prefix)

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """All tensors by key, in the order of the index. Partitioned ones are one entry."""
        return self.index.entries

    def pieces(self, entry: TensorEntry) -> tuple[TensorEntry, ...]:
        """Return what is stored of a tensor: itself, or its slices."""
        return self.index.pieces[entry.key] if entry.slices else (entry,)

    def chunks(self, entry: TensorEntry, chunk_bytes: int | None = None) -> Iterator[bytes]:
        """Yield the stored bytes of a tensor in order; not verified.

        A partitioned tensor comes assembled. It streams if it is cut along its outermost dimension, as
        TensorFlow's own partitioners do; otherwise it is held in memory once.
        """
        chunk_bytes = chunk_bytes or self._chunk_bytes
        expected = expected_bytes(entry)
        if expected is not None and expected != entry.size_bytes:
            raise ModelError(
                f"{entry.key!r} ({entry.dtype} {list(entry.shape)}) needs {expected} bytes; the index of "
                f"{self._directory.uri} gives it {entry.size_bytes}.",
                code="BAD_ENTRY_SIZE",
                fix=_REWRITE,
            )
        pieces = self.pieces(entry)
        if not entry.slices:
            yield from self.stored_chunks(entry, chunk_bytes)
        elif _is_cut_in_rows(entry):
            for piece in sorted(pieces, key=lambda piece: piece.slices):
                yield from self.stored_chunks(piece, chunk_bytes)
        else:
            for piece in pieces:
                self._shard_with(piece)  # before memory is taken for what is not there
            whole = bytearray(entry.size_bytes)
            for piece in pieces:
                _place(whole, entry, piece.slices[0], b"".join(self.stored_chunks(piece, chunk_bytes)))
            for start in range(0, len(whole), chunk_bytes):
                yield bytes(whole[start : start + chunk_bytes])

    def stored_chunks(self, piece: TensorEntry, chunk_bytes: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of one stored tensor or slice (see `pieces`) as they are; not verified."""
        if not piece.size_bytes:
            return
        if self.index.is_big_endian:
            raise ModelError(
                f"The variables of {self._directory.uri} were written on a big-endian machine.",
                code="BIG_ENDIAN",
                fix="Load and export the model on a little-endian machine.",
            )
        shard = self._shard_with(piece)
        chunk_bytes = chunk_bytes or self._chunk_bytes
        offset, end = piece.offset, piece.offset + piece.size_bytes
        while offset < end:
            chunk = shard.pread(offset, min(chunk_bytes, end - offset))
            if not chunk:
                raise truncated_shard(self._path_of(piece), offset, end, piece.key)
            yield chunk
            offset += len(chunk)

    def read(self, entry: TensorEntry) -> bytes:
        """Return the stored bytes of a tensor, whole; not verified."""
        return b"".join(self.chunks(entry))

    def read_strings(self, entry: TensorEntry) -> list[bytes]:
        """Return the elements of a string tensor, verified."""
        try:
            return split_strings(entry, self.read(entry))
        except Malformed as exc:
            raise crc_mismatch(entry, self._path_of(entry)) from exc

    def verify(self, entry: TensorEntry) -> None:
        """Read a tensor and compare its checksum with the index. Raises ModelError `CRC_MISMATCH`."""
        for piece in self.pieces(entry):
            if self.checksum(piece) != piece.crc32c:
                raise crc_mismatch(piece, self._path_of(piece))

    def checksum(self, piece: TensorEntry) -> int:
        """Return the masked checksum of a stored tensor or slice as TensorFlow computes it."""
        if piece.dtype in ("string", "variant") and piece.size_bytes:
            content = b"".join(self.stored_chunks(piece))
            try:
                return string_checksum(piece, content) if piece.dtype == "string" else variant_checksum(piece, content)
            except Malformed as exc:
                raise crc_mismatch(piece, self._path_of(piece)) from exc
        crc = 0
        for chunk in self.stored_chunks(piece):
            crc = google_crc32c.extend(crc, chunk)
        return mask(crc)

    def equal(self, one: TensorEntry, other: TensorEntry) -> bool:
        """Tell whether two tensors hold the same bytes; a checksum alone does not prove it."""
        if (one.dtype, one.shape, one.size_bytes) != (other.dtype, other.shape, other.size_bytes):
            return False
        return all(left == right for left, right in zip(self.chunks(one), self.chunks(other), strict=True))

    def close(self) -> None:
        """Close the data files."""
        while self._shards:
            self._shards.popitem()[1].close()

    def __enter__(self) -> BundleReader:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the data files."""
        self.close()

    def _path_of(self, piece: TensorEntry) -> str:
        return shard_path(self.prefix, piece.shard, self.index.shard_count)

    def _shard_with(self, piece: TensorEntry) -> RandomAccess:
        """Return the data file that holds all of a piece."""
        path, end = self._path_of(piece), piece.offset + piece.size_bytes
        with self._opening:
            if piece.shard not in self._shards:
                try:
                    shard = self._directory.open(path)
                except StorageError as exc:
                    if exc.code != "NOT_FOUND":
                        raise
                    raise missing_shard(path) from exc
                self._shards[piece.shard] = shard if self.is_local else _ReadAhead(shard)
            shard = self._shards[piece.shard]
        if end > shard.size_bytes:
            raise truncated_shard(path, shard.size_bytes, end, piece.key)
        return shard


class _ReadAhead:
    """A remote file of which a small piece is fetched together with what follows it."""

    def __init__(self, file: RandomAccess) -> None:
        self._file = file
        self.size_bytes = file.size_bytes
        self._offset, self._buffer = 0, b""

    def pread(self, offset: int, length: int) -> bytes:
        if length >= READ_AHEAD_BYTES:
            return self._file.pread(offset, length)
        if offset < self._offset or offset + length > self._offset + len(self._buffer):
            self._offset, self._buffer = offset, self._file.pread(offset, READ_AHEAD_BYTES)
        return self._buffer[offset - self._offset : offset - self._offset + length]

    def close(self) -> None:
        self._file.close()


def _read_index(directory: Directory, prefix: str) -> BundleIndex:
    path = f"{prefix}.index"
    try:
        with closing(directory.open(path)) as file:
            size_bytes = file.size_bytes
        if size_bytes > MAX_INDEX_BYTES:
            raise ModelError(
                f"{directory.uri}/{path} has {size_bytes} bytes; an index has at most {MAX_INDEX_BYTES}.",
                code="INDEX_CORRUPT",
                fix=_REWRITE,
            )
        content = directory.read_bytes(path)
    except StorageError as exc:
        if exc.code != "NOT_FOUND":
            raise
        raise ModelError(
            f"{directory.uri} has no {path}.",
            code="NO_VARIABLES",
            fix="Copy the whole directory of the SavedModel, not only saved_model.pb.",
        ) from exc
    try:
        return parse_index(content)
    except Malformed as exc:
        raise ModelError(f"{directory.uri}/{path}: {exc}.", code="INDEX_CORRUPT", fix=_REWRITE) from exc


def missing_shard(path: str) -> ModelError:
    """Return the error for a data file that the index names and the directory lacks."""
    return ModelError(f"The variables need {path}, which is not there.", code="MISSING_SHARD", fix=_REWRITE)


def truncated_shard(path: str, size_bytes: int, needed_bytes: int, key: str) -> ModelError:
    """Return the error for a data file that ends before a tensor that it should hold."""
    return ModelError(
        f"{path} has {size_bytes} bytes; the tensor {key!r} needs it to have {needed_bytes}.",
        code="TRUNCATED_SHARD",
        fix=_REWRITE,
    )


def crc_mismatch(piece: TensorEntry, path: str) -> ModelError:
    """Return the error for a tensor whose bytes changed since it was written."""
    return ModelError(
        f"The bytes of {piece.key!r} in {path} do not match their checksum.",
        code="CRC_MISMATCH",
        fix=_REWRITE,
    )


def expected_bytes(entry: TensorEntry) -> int | None:
    """Return the size that dtype and shape ask for, or None where elements have no fixed size."""
    dtype = BY_NAME.get(entry.dtype)
    if dtype is None or dtype.size_bytes is None:
        return None
    return prod(entry.shape) * dtype.size_bytes


def _is_cut_in_rows(entry: TensorEntry) -> bool:
    return all(
        extent == (0, size) for spec in entry.slices for extent, size in zip(spec[1:], entry.shape[1:], strict=True)
    )


def _place(whole: bytearray, entry: TensorEntry, spec: SliceSpec, content: bytes) -> None:
    """Copy a slice, row by row of its innermost dimension, to where it belongs in the tensor."""
    item = BY_NAME[entry.dtype].size_bytes or 0
    if prod(length for _, length in spec) * item != len(content):
        raise ModelError(
            f"A slice of {entry.key!r} has {len(content)} bytes, not what {spec} needs.",
            code="BAD_ENTRY_SIZE",
            fix=_REWRITE,
        )
    row = spec[-1][1] * item
    strides = [item * prod(entry.shape[axis + 1 :]) for axis in range(len(spec))]
    offsets = [spec[-1][0] * item]
    for (start, length), stride in zip(reversed(spec[:-1]), reversed(strides[:-1]), strict=True):
        offsets = [stride * (start + step) + inner for step in range(length) for inner in offsets]
    for number, offset in enumerate(sorted(offsets)):
        whole[offset : offset + row] = content[number * row : (number + 1) * row]
