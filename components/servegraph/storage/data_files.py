"""Data files by URI: one file, a pattern or a whole directory, on this machine or on Cloud Storage."""

from __future__ import annotations

import functools
import glob
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, cast

from servegraph.errors import StorageError
from servegraph.storage.directory import as_stream, local_path

Compression = Literal["gzip", "xz", "bzip2"]

_SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".xz": "xz", ".bz2": "bzip2"}
# First bytes, none of which UTF-8 text has; those of bzip2 are letters.
COMPRESSED: Mapping[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz"}
_BZIP2 = b"BZh"


@dataclass(frozen=True)
class FileRef:
    """One file that a URI matched.

    `compression` follows from the name's suffix, or on Cloud Storage from the object's content encoding. The
    content is not looked at here, because a TFRecord file may start with any bytes.
    """

    uri: str
    size_bytes: int
    compression: Compression | None
    _opener: Callable[[], BinaryIO] = field(repr=False, compare=False)
    md5: str | None = None  # of the stored bytes in base64, where the storage keeps it

    def open(self) -> BinaryIO:
        """Open the file's stored bytes for reading from its start. Raises `StorageError`."""
        return self._opener()

    def open_binary(self) -> BinaryIO:
        """Open the file for reading from its start, decompressed where it is compressed.

        Raises:
            StorageError: the file cannot be read; from its reads: it is damaged or cut off (code `DAMAGED`).
        """
        stored = self.open()
        if self.compression is None:
            return stored
        decompressed = _Decompressed(stored, self.compression, self.uri)
        return cast("BinaryIO", io.BufferedReader(decompressed, 1 << 18))

    def open_text(self) -> BinaryIO:
        """Open a file of text as `open_binary` does, compressed as its content says: a download may keep a `.gz`.

        Raises:
            StorageError: as of `open_binary`.
        """
        with self.open() as stored:
            head = stored.read(max(map(len, COMPRESSED)))
        compression = next((kind for magic, kind in COMPRESSED.items() if head.startswith(magic)), None)
        if compression is None and self.compression == "bzip2" and head.startswith(_BZIP2):
            compression = "bzip2"
        return replace(self, compression=compression).open_binary()


def match(uri: str | Path, *, client: Any = None) -> list[FileRef]:
    """Return the files that `uri` names, sorted: the file itself, a pattern's matches, a directory's files.

    Patterns have `*`, `?`, `[…]` and `**`, and match hidden files only where they say so. Of a directory,
    files whose path has a part that starts with `.` or `_` are left out, as Spark and Hadoop do, which write
    `_SUCCESS` there. Links to files are followed, since data sets are commonly made of them. `client` is a
    `google.cloud.storage.Client` for gs:// URIs.

    Raises:
        StorageError: nothing matches (code `NOT_FOUND`), `uri` is empty (`BAD_PATH`), or storage cannot be read.
    """
    require_uri(uri)
    local = local_path(uri)
    found = _match_local(local) if local is not None else _match_gcs(str(uri), client)
    if not found:
        raise StorageError(f"{str(uri)!r} matches no file.", code="NOT_FOUND", fix="Check the path, or the pattern.")
    return sorted(found, key=lambda ref: ref.uri)


def require_match(*uris: str | None) -> None:
    """Raise `StorageError`, as `match` does, where one of the `uris` that are given names no file.

    For what is read late: better said before a model is loaded.
    """
    for uri in uris:
        if uri:
            match(uri)


def require_uri(uri: str | Path) -> None:
    """Raise `StorageError` (code `BAD_PATH`) where `uri` is empty: as a path it would be the current directory."""
    if not str(uri):
        fix = "Give a path, a pattern or gs://…; a shell variable in its place may not be set."
        raise StorageError("An empty text names no files.", code="BAD_PATH", fix=fix)


def _match_local(path: Path) -> list[FileRef]:
    from servegraph.storage.local import answering

    with answering("read", path):
        if path.is_dir():
            return [_local_ref(file) for file in _shown_files(path)]
        if not path.exists() and glob.has_magic(str(path)):
            found = map(Path, glob.iglob(str(path), recursive=True))  # noqa: PTH207  Path.glob takes no absolute one
            return [_local_ref(file) for file in found if file.is_file()]
        return [_local_ref(path)]


def _shown_files(root: Path) -> list[Path]:
    files: list[Path] = []
    for folder, subfolders, names in os.walk(root, onerror=_raise):
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
        files += [Path(folder, name) for name in names if not _is_hidden(name)]
    return [file for file in files if file.is_file()]


def _local_ref(path: Path) -> FileRef:
    from servegraph.storage.local import open_file

    return FileRef(
        uri=str(path),
        size_bytes=path.stat().st_size,
        compression=_SUFFIXES.get(path.suffix),
        _opener=functools.partial(open_file, path),
    )


def _match_gcs(uri: str, client: Any) -> list[FileRef]:
    from servegraph.storage import gcs

    bucket, name = gcs.split_gs_uri(uri)
    client = client or gcs.default_client(uri)
    with gcs.answering("read", uri):
        if glob.has_magic(name):
            shows_hidden = PurePosixPath(name).name.startswith(".")
            blobs = gcs.list_objects(client, bucket, match_glob=name)
            blobs = [b for b in blobs if shows_hidden or not PurePosixPath(b.name).name.startswith(".")]
        elif name and not name.endswith("/") and (blob := client.bucket(bucket).get_blob(name)):
            blobs = [blob]
        else:
            prefix = name.rstrip("/") + "/" if name else ""
            blobs = gcs.list_objects(client, bucket, prefix=prefix)
            blobs = [b for b in blobs if not any(map(_is_hidden, b.name.removeprefix(prefix).split("/")))]
    return [_gcs_ref(blob) for blob in blobs]


def _gcs_ref(blob: Any) -> FileRef:
    from servegraph.storage.gcs import GcsFile

    encoded: Compression | None = "gzip" if blob.content_encoding == "gzip" else None
    return FileRef(
        uri=f"gs://{blob.bucket.name}/{blob.name}",
        size_bytes=blob.size,
        compression=_SUFFIXES.get(PurePosixPath(blob.name).suffix, encoded),
        _opener=lambda: as_stream(GcsFile(blob.bucket, blob.name, blob.size, blob.generation)),
        md5=blob.md5_hash,
    )


class _Decompressed(io.RawIOBase):
    """The decompressed content of a stream, which it closes; damage is a `StorageError`."""

    def __init__(self, stored: BinaryIO, compression: Compression, uri: str) -> None:
        import bz2
        import gzip
        import lzma
        import zlib

        super().__init__()
        self._damage = (EOFError, OSError, lzma.LZMAError, zlib.error)
        self._stored = stored
        self._uri = uri
        openers: dict[Compression, Callable[[BinaryIO], Any]] = {
            "gzip": gzip.open,
            "xz": lzma.open,
            "bzip2": bz2.open,
        }
        self._content = openers[compression](stored)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed asks for any buffer
        try:
            return cast("int", self._content.readinto(buffer))
        except StorageError:
            raise
        except self._damage as exc:
            raise StorageError(
                f"{self._uri!r} cannot be decompressed: {exc}.",
                code="DAMAGED",
                fix="Make or fetch the file again; it is damaged, cut off, or not what its name says.",
            ) from exc

    def close(self) -> None:
        if not self.closed:
            self._content.close()
            self._stored.close()
        super().close()


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _raise(error: OSError) -> None:
    raise error
