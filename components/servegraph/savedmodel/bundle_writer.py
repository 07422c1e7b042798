"""Writes a checkpoint that TensorFlow reads bit for bit, holding one chunk at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from types import TracebackType

import google_crc32c

from servegraph.errors import InputError
from servegraph.savedmodel.bundle_index import (
    TensorEntry,
    encode_entry,
    encode_header,
    encode_slice_key,
    encode_sliced_entry,
)
from servegraph.savedmodel.bundle_reader import BundleReader, crc_mismatch, expected_bytes
from servegraph.savedmodel.dtypes import BY_NAME
from servegraph.savedmodel.sstable import mask, write_table
from servegraph.savedmodel.string_tensors import lengths_checksum
from servegraph.savedmodel.wire import encode_varint
from servegraph.storage.local import answering

_LONG_BYTES = 4_000_000  # a tensor of which it pays to read and write at the same time


class BundleWriter:
    """A checkpoint at `prefix` (`…/variables/variables`): one data file and its index, visible after `close`.

    As a context manager it closes on success and leaves nothing behind on an error. A `hollow` one has the size it will
    have and its index, and a hole in its data file for every tensor that is copied, which is not read for it.

    Raises:
        InputError: a key twice, an unknown dtype, or bytes that do not fit dtype and shape (`BAD_TENSOR`).
        StorageError: the disk refuses.
    """

    def __init__(self, prefix: Path, *, hollow: bool = False) -> None:
        """Create the folder of `prefix` and a temporary data file in it."""
        self._prefix = Path(prefix)
        self._is_hollow = hollow
        self._entries: dict[str, TensorEntry] = {}
        self._pieces: dict[str, list[TensorEntry]] = {}
        self._offset = 0
        self._temporary = self._prefix.with_name(f".{self._prefix.name}.data.partial")
        self._temporary_index = self._prefix.with_name(f".{self._prefix.name}.index.partial")
        with answering("write", self._prefix):
            self._prefix.parent.mkdir(parents=True, exist_ok=True)
            self._data = self._temporary.open("wb", buffering=0)

    def add(self, key: str, dtype: str, shape: tuple[int, ...], chunks: Iterable[bytes]) -> TensorEntry:
        """Write a tensor of fixed-size elements, little-endian in row-major order."""
        self._check(key, dtype)
        if BY_NAME[dtype].size_bytes is None:
            raise InputError(f"{key!r} is of {dtype}.", code="BAD_TENSOR", fix="Give its elements to add_strings.")
        self._entries[key] = entry = self._store(key, dtype, tuple(shape), chunks)
        return entry

    def add_strings(self, key: str, shape: tuple[int, ...], values: Iterable[bytes]) -> TensorEntry:
        """Write a string tensor from its elements in row-major order."""
        self._check(key, "string")
        elements = list(values)
        if len(elements) != prod(shape):
            raise InputError(
                f"{key!r} of shape {list(shape)} got {len(elements)} strings.",
                code="BAD_TENSOR",
                fix=f"Give {prod(shape)}, one for each element of the shape.",
            )
        lengths = [len(element) for element in elements]
        lengths_crc = lengths_checksum(lengths)
        stored_crc = mask(lengths_crc).to_bytes(4, "little")
        head = b"".join(map(encode_varint, lengths)) + stored_crc
        entry = self._store(key, "string", tuple(shape), [head, *elements] if elements else [])
        if elements:
            # The checksum covers the lengths in fixed width, not the varints that are stored.
            crc = google_crc32c.extend(lengths_crc, stored_crc)
            for element in elements:
                crc = google_crc32c.extend(crc, element)
            entry = entry._replace(crc32c=mask(crc))
        self._entries[key] = entry
        return entry

    def copy(self, entry: TensorEntry, source: BundleReader, key: str | None = None) -> TensorEntry:
        """Copy a tensor from `source` as it is stored, checksummed on the way.

        Raises:
            ModelError: the source is damaged (`CRC_MISMATCH`, `TRUNCATED_SHARD`, …).
        """
        new_key = entry.key if key is None else key
        self._check(new_key, entry.dtype)
        pieces = [self._copy_stored(piece, source, new_key) for piece in source.pieces(entry)]
        if entry.slices:
            return self._finish_sliced(new_key, entry.dtype, entry.shape, pieces)
        self._entries[new_key] = pieces[0]
        return pieces[0]

    def alias(self, key: str, same_as: str) -> TensorEntry:
        """Give the tensor `same_as`, already written, a second key; its bytes are not stored again."""
        target = self._entries.get(same_as)
        if target is None:
            raise InputError(
                f"{key!r} shall share {same_as!r}, which is not written yet.",
                code="BAD_TENSOR",
                fix="Write that one first.",
            )
        self._check(key, target.dtype)
        self._entries[key] = alias = target._replace(key=key)
        if same_as in self._pieces:
            self._pieces[key] = [piece._replace(key=key) for piece in self._pieces[same_as]]
        return alias

    def close(self) -> None:
        """Write the index and make both files visible, the data file first."""
        with answering("write", self._prefix):
            self._data.truncate(self._offset)  # a hole at the end
            self._data.close()
            with self._temporary_index.open("wb") as file:
                for part in write_table(self._table()):
                    file.write(part)
            self._temporary.replace(self._prefix.with_name(f"{self._prefix.name}.data-00000-of-00001"))
            self._temporary_index.replace(self._prefix.with_name(f"{self._prefix.name}.index"))

    def discard(self) -> None:
        """Remove what was written so far."""
        self._data.close()
        self._temporary.unlink(missing_ok=True)
        self._temporary_index.unlink(missing_ok=True)

    def __enter__(self) -> BundleWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, or discard after an error."""
        if kind is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def _check(self, key: str, dtype: str) -> None:
        if not key or key.startswith("\0") or key in self._entries:
            raise InputError(
                f"The key {key!r} cannot be used, or is there already.",
                code="BAD_TENSOR",
                fix="Give each tensor a key of its own, not empty, that begins with no zero byte.",
            )
        if dtype not in BY_NAME:
            raise InputError(
                f"{key!r} is of the unknown dtype {dtype!r}.",
                code="BAD_TENSOR",
                fix=f"Give one of {', '.join(sorted(BY_NAME))}.",
            )

    def _store(self, key: str, dtype: str, shape: tuple[int, ...], chunks: Iterable[bytes]) -> TensorEntry:
        start, crc = self._offset, 0
        is_long = prod(shape) * (BY_NAME[dtype].size_bytes or 0) >= _LONG_BYTES
        with answering("write", self._prefix):
            for chunk in _ahead(iter(chunks)) if is_long else chunks:
                crc = google_crc32c.extend(crc, chunk)
                self._write(chunk)
        size = self._offset - start
        entry = TensorEntry(key, dtype, shape, 0, start, size, mask(crc))
        expected = expected_bytes(entry)
        if expected is not None and expected != size:
            raise InputError(
                f"{key!r} ({dtype} {list(shape)}) needs {expected} bytes and got {size}.",
                code="BAD_TENSOR",
                fix="Give the bytes of every element once, or the shape and dtype that the bytes have.",
            )
        return entry

    def _write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:  # a raw file may take less than it is given
            written = self._data.write(view)
            view = view[written:]
            self._offset += written

    def _copy_stored(self, piece: TensorEntry, source: BundleReader, key: str) -> TensorEntry:
        if self._is_hollow:
            start, self._offset = self._offset, self._offset + piece.size_bytes
            with answering("write", self._prefix):
                self._data.seek(self._offset)
            return piece._replace(key=key, shard=0, offset=start)
        if piece.dtype in ("string", "variant"):
            source.verify(piece._replace(slices=()))
        stored = self._store(key, piece.dtype, piece.shape, source.stored_chunks(piece))
        if piece.dtype in ("string", "variant"):
            stored = stored._replace(crc32c=piece.crc32c)
        elif piece.size_bytes and stored.crc32c != piece.crc32c:
            raise crc_mismatch(piece, f"shard {piece.shard} of {source.prefix}")
        return stored._replace(slices=piece.slices)

    def _finish_sliced(self, key: str, dtype: str, shape: tuple[int, ...], pieces: list[TensorEntry]) -> TensorEntry:
        self._pieces[key] = pieces
        size = sum(piece.size_bytes for piece in pieces)
        slices = tuple(piece.slices[0] for piece in pieces)
        self._entries[key] = entry = TensorEntry(key, dtype, shape, 0, 0, size, 0, slices)
        if expected_bytes(entry) not in (None, size):
            raise InputError(
                f"The slices of {key!r} do not add up to {list(shape)}.",
                code="BAD_TENSOR",
                fix="Give slices that cover the shape and do not overlap.",
            )
        return entry

    def _table(self) -> Iterator[tuple[bytes, bytes]]:
        rows = {b"": encode_header(1)}
        for entry in self._entries.values():
            encode = encode_sliced_entry if entry.slices else encode_entry
            rows[entry.key.encode()] = encode(entry)
        for key, pieces in self._pieces.items():
            for piece in pieces:
                rows[encode_slice_key(key, piece.slices[0])] = encode_entry(piece)
        return iter(sorted(rows.items()))


def _ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Have the next chunk read and converted by another thread while this one is written."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(next, chunks, None)
            yield chunk
