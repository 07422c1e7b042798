"""The interface: a directory of files, local or on Cloud Storage, read at random and written whole."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

from servegraph.errors import StorageError

# Bytes asked for at once when a remote file is streamed: enough to make a request worth its latency.
STREAM_CHUNK_BYTES = 8 << 20
# Of a SavedModel, the first before the second; written last, so that a model that has one is complete.
GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")
# What is written for gs://, and would be a path on this machine.
_MISTYPED = re.compile(r"(gs|gcs|g|gss):/*", re.IGNORECASE)


class FileInfo(NamedTuple):
    """One file below a directory: `path` relative with `/`, its size, and where it leads if it is a link.

    A link that leaves the directory, or leads nowhere, or leads to a directory is listed with size 0.
    """

    path: str
    size_bytes: int
    link_target: str | None = None


class RandomAccess(Protocol):
    """A file that is read in pieces."""

    @property
    def size_bytes(self) -> int:
        """Whole length of the file."""

    def pread(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end of the file.

        Raises:
            StorageError: the file cannot be read.
        """

    def close(self) -> None:
        """Release what is held; further reads are errors."""


class Directory(Protocol):
    """A directory of files. `uri` is how the user named it, without a trailing slash.

    Paths are relative, with `/`, and stay below the directory: anything else is a `StorageError` with the
    code `BAD_PATH`, because such paths come out of models that somebody else made.
    """

    @property
    def uri(self) -> str:
        """How the user named the directory."""

    def files(self) -> list[FileInfo]:
        """All files below, sorted by path; one listing, no content is read.

        Raises:
            StorageError: the directory does not exist or cannot be listed (code `NOT_FOUND`,
                `NOT_A_DIRECTORY`, `NO_ACCESS`).
        """

    def open(self, path: str) -> RandomAccess:
        """Open a file for reading at random. Raises `StorageError`."""

    def read_bytes(self, path: str) -> bytes:
        """Return a whole small file. Raises `StorageError`."""

    def stream(self, path: str) -> BinaryIO:
        """Open a file for reading from its start. Raises `StorageError`, a remote file also from reads."""

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a whole small file, visible only when complete. Raises `StorageError`."""


def open_dir(uri: str | Path) -> Directory:
    """Return the directory that `uri` names: a local path, `file:///path` or `gs://bucket/prefix`.

    Nothing is read: a directory that does not exist is reported by the first use.

    Raises:
        StorageError: the scheme is not known (code `UNKNOWN_SCHEME`), or it is mistyped or names no bucket (`BAD_URI`).
    """
    local = local_path(uri)
    if local is not None:
        from servegraph.storage.local import LocalDirectory

        return LocalDirectory(local)
    from servegraph.storage.gcs import GcsDirectory

    return GcsDirectory(str(uri))


def local_path(uri: str | Path) -> Path | None:
    """Return the local path that `uri` names, or None where it names an object on Cloud Storage.

    Raises:
        StorageError: the scheme is not known (code `UNKNOWN_SCHEME`), or it is a mistyped gs:// (`BAD_URI`).
    """
    text = str(uri)
    scheme, found, rest = text.partition("://")
    if isinstance(uri, Path):
        return uri
    if scheme != "gs" and (mistyped := _MISTYPED.match(text)):
        raise StorageError(
            f"{text!r} is a mistyped address.", code="BAD_URI", fix=f"Write gs://{text[mistyped.end() :]}"
        )
    if not found:
        return Path(text)
    if scheme == "file":
        from urllib.parse import unquote

        return Path("/" + unquote(rest).removeprefix("localhost").lstrip("/"))
    if scheme == "gs":
        return None
    raise StorageError(
        f"{text!r} has the scheme {scheme!r}, which is not supported.",
        code="UNKNOWN_SCHEME",
        fix="Give a local path or gs://bucket/prefix.",
    )


def checked_path(path: str, directory_uri: str) -> str:
    """Return `path` if it is relative and stays below its directory.

    Raises:
        StorageError: it is absolute, empty, or has a `..` in it (code `BAD_PATH`).
    """
    if not path or path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise StorageError(
            f"{path!r} does not name a file below {directory_uri!r}.",
            code="BAD_PATH",
            fix="Use a relative path without '..'.",
        )
    return path


def iter_chunks(file: RandomAccess, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """Yield the content of `file` from its start in pieces of at most `chunk_bytes`."""
    offset = 0
    while offset < file.size_bytes:
        chunk = file.pread(offset, chunk_bytes)
        if not chunk:
            return
        yield chunk
        offset += len(chunk)


def as_stream(file: RandomAccess, chunk_bytes: int = STREAM_CHUNK_BYTES) -> BinaryIO:
    """Return a buffered, seekable stream over `file`, which it closes when it is closed."""
    return cast("BinaryIO", io.BufferedReader(_RawStream(file), chunk_bytes))


class _RawStream(io.RawIOBase):
    """A `RandomAccess` with a position, which is all that `io.BufferedReader` needs."""

    def __init__(self, file: RandomAccess) -> None:
        super().__init__()
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed asks for any buffer
        piece = self._file.pread(self._position, len(buffer))
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
