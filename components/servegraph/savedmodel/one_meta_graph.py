"""A SavedModel of several MetaGraphs as if it had only one, tagged `serve`: what a server takes without being told.

Nothing is parsed but the frame of the file, so a graph of gigabytes is read in pieces as it is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from servegraph.errors import ModelError
from servegraph.savedmodel.graph import SERVING_TAG
from servegraph.savedmodel.graph_reader import BINARY
from servegraph.savedmodel.meta_graph import MAX_MESSAGE_BYTES
from servegraph.savedmodel.metadata_files import FINGERPRINT  # of the whole file
from servegraph.savedmodel.wire import (
    BYTES,
    BytesFile,
    Field,
    Malformed,
    Window,
    decoded,
    encode_bytes,
    encode_number,
    encode_varint,
    fields,
)
from servegraph.storage.directory import Directory, FileInfo, RandomAccess, as_stream

_META_INFO, _TAGS, _META_GRAPH, _SCHEMA_VERSION = 1, 4, 2, 1


class _Frame(NamedTuple):
    """What the new file begins with, and the parts of the old one that follow."""

    head: bytes
    parts: tuple[tuple[int, int], ...]

    @property
    def size_bytes(self) -> int:
        return len(self.head) + sum(end - start for start, end in self.parts)


@dataclass(frozen=True)
class OneMetaGraph:
    """A `Directory` over another one; `replaced` are further files that have another content here."""

    directory: Directory
    tags: tuple[str, ...]
    replaced: Mapping[str, bytes]

    @property
    def uri(self) -> str:
        """That of the directory."""
        return self.directory.uri

    def files(self) -> list[FileInfo]:
        """Return the files as they are here."""
        listed = []
        for info in self.directory.files():
            if info.path == BINARY:
                listed.append(FileInfo(BINARY, self._frame().size_bytes))
            elif info.path in self.replaced:
                listed.append(FileInfo(info.path, len(self.replaced[info.path])))
            elif info.path != FINGERPRINT:
                listed.append(info)
        return listed

    def open(self, path: str) -> RandomAccess:
        """Open a file for reading at random. Raises `StorageError`."""
        if (content := self.replaced.get(path)) is not None:
            return BytesFile(content)
        if path == BINARY:
            return _Spliced(self.directory.open(path), self._frame())
        return self.directory.open(path)

    def read_bytes(self, path: str) -> bytes:
        """Return a whole small file. Raises `StorageError`."""
        file = self.open(path)
        try:
            return file.pread(0, file.size_bytes)
        finally:
            file.close()

    def stream(self, path: str) -> BinaryIO:
        """Open a file for reading from its start. Raises `StorageError`."""
        return as_stream(self.open(path))

    def write_bytes(self, path: str, content: bytes) -> None:
        """Nothing is written through a view."""
        raise NotImplementedError(f"{path} of a view")

    def _frame(self) -> _Frame:
        file = self.directory.open(BINARY)
        try:
            return _frame_of(Window(file), self.tags)
        except Malformed as exc:
            message = f"{self.uri}/{BINARY}: {exc}."
            raise ModelError(message, code="GRAPH_CORRUPT", fix="Export the model again.") from exc
        finally:
            file.close()


def _frame_of(window: Window, tags: tuple[str, ...]) -> _Frame:
    """Return the frame of the first MetaGraph with these tags."""
    version = 1
    for field in window.fields(0, window.size_bytes):
        if field.number == _SCHEMA_VERSION and not field.end:
            version = field.value
        elif field.number == _META_GRAPH and (found := _retagged(window, field, tags)):
            info, parts = found
            size = len(info) + sum(end - start for start, end in parts)
            head = encode_number(_SCHEMA_VERSION, version) + encode_varint(_META_GRAPH << 3 | BYTES)
            return _Frame(head + encode_varint(size) + info, parts)
    raise Malformed(f"no MetaGraph has the tags {', '.join(tags)}")


def _retagged(window: Window, graph: Field, tags: tuple[str, ...]) -> tuple[bytes, tuple[tuple[int, int], ...]] | None:
    """Return the meta info with the serving tag alone, and all else of the MetaGraph; None where it has other tags."""
    after = graph.start
    for field in window.fields(graph.start, graph.end):
        if field.number == _META_INFO and field.end:
            if field.end - field.start > MAX_MESSAGE_BYTES:
                raise Malformed(f"the meta info at byte {field.start} is too large")
            content = window.read(field.start, field.end)
            found, kept = [], bytearray()
            for part in fields(content):
                if part.number == _TAGS:
                    found.append(decoded(content[part.start : part.end]))
                elif part.end:
                    kept += encode_bytes(part.number, content[part.start : part.end])
                else:
                    kept += encode_number(part.number, part.value)
            if set(found) != set(tags):
                return None
            info = encode_bytes(_META_INFO, bytes(kept) + encode_bytes(_TAGS, SERVING_TAG.encode()))
            return info, ((graph.start, after), (field.end, graph.end))
        after = field.end
    return None


class _Spliced:
    """A file of bytes and parts of another one."""

    def __init__(self, file: RandomAccess, frame: _Frame) -> None:
        self._file = file
        self._head = frame.head
        self._parts = frame.parts
        self.size_bytes = frame.size_bytes

    def pread(self, offset: int, length: int) -> bytes:
        found = [self._head[offset : offset + length]] if offset < len(self._head) else []
        begin, wanted_end = len(self._head), offset + length
        for start, end in self._parts:
            low, high = max(offset, begin), min(wanted_end, begin + end - start)
            if low < high:
                found.append(self._file.pread(start + low - begin, high - low))
            begin += end - start
        return b"".join(found)

    def close(self) -> None:
        self._file.close()
