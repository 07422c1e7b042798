"""A whole directory to Cloud Storage: parallel, in parts, create-only, checked, resumable; the graph comes last.

A large file goes up as parts that are put together in the bucket, so that what a killed upload had finished is kept.
Every object is made only where there is none (generation 0), and one that is there has to have the right CRC32C.
Memory is a few chunks a worker, whatever the size of the files.
Sources: https://cloud.google.com/storage/docs/parallel-composite-uploads, .../docs/composite-objects.
"""

from __future__ import annotations

import base64
import functools
import io
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, BinaryIO

from servegraph.errors import StorageError
from servegraph.storage.directory import GRAPH_FILES, Directory, FileInfo, iter_chunks
from servegraph.storage.gcs import GcsDirectory, answering, default_client, list_objects, split_gs_uri
from servegraph.storage.subset import Subset

CHUNK_BYTES = 8 << 20  # sent in one request
PART_BYTES = 64 << 20
MAX_PARTS = 32  # that can be composed at once
WORKERS = 8
_WAKE_S = 0.05
PARTS = ".parts/"  # below the destination, until the file is whole

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Sizes:
    """How an upload is cut up; other than the defaults only in tests."""

    chunk_bytes: int = CHUNK_BYTES
    part_bytes: int = PART_BYTES
    workers: int = WORKERS


def staged_files(uri: str, client: Any = None) -> dict[str, int]:
    """Return the sizes of the objects below `uri` by relative path, without parts of unfinished files.

    Raises:
        StorageError: the bucket cannot be listed.
    """
    bucket, name = split_gs_uri(uri)
    prefix = name.rstrip("/") + "/"
    with answering("list", uri):
        blobs = list_objects(client or default_client(uri), bucket, prefix=prefix)
        files = {blob.name.removeprefix(prefix): blob.size for blob in blobs}
    return {path: size for path, size in files.items() if not path.startswith(PARTS)}


def remove_below(uri: str, client: Any = None, keep: str = "") -> None:
    """Remove all objects below `uri` but the one at `keep`, the graph first; those already gone are fine.

    Raises:
        StorageError: one cannot be removed.
    """
    from google.api_core.exceptions import NotFound
    from google.cloud.storage.retry import DEFAULT_RETRY

    bucket, name = split_gs_uri(uri)
    prefix = name.rstrip("/") + "/"
    with answering("remove", uri):
        blobs = list_objects(client or default_client(uri), bucket, prefix=prefix)
        for blob in sorted(blobs, key=lambda blob: not _is_graph(blob.name)):
            if f"gs://{bucket}/{blob.name}" != keep:
                try:
                    blob.delete(retry=DEFAULT_RETRY)
                except NotFound:
                    continue


def upload(
    source: Directory,
    uri: str,
    client: Any = None,
    on_bytes: OnBytes = lambda count: None,
    before_last: Callable[[], None] = lambda: None,
    sizes: Sizes = Sizes(),
) -> None:
    """Copy all files of `source` below `uri`; what is there already is checked and kept.

    `before_last` is called when all but `saved_model.pb` is there: what it raises keeps the model from being complete.

    Raises:
        StorageError: a file cannot be read or written, or another one is in its place (code `STAGED_DIFFERS`).
    """
    client = client or default_client(uri)
    files = source.files()
    origin = source.directory if isinstance(source, Subset) else source  # where the bytes are, and what can copy them
    # The sum alone would take minutes to be seen: parts are counted as they are read.
    last = [info for info in files if _is_graph(info.path)]
    copy = (
        _ServerSide(origin, uri, client) if isinstance(origin, GcsDirectory) else _Uploader(source, uri, client, sizes)
    )
    copy.copy([info for info in files if info not in last], on_bytes)
    before_last()
    copy.copy(last, on_bytes)


def _is_graph(path: str) -> bool:
    return path.rsplit("/", 1)[-1] in GRAPH_FILES


class _Uploader:
    """From this machine."""

    def __init__(self, source: Directory, uri: str, client: Any, sizes: Sizes) -> None:
        bucket, name = split_gs_uri(uri)
        self._source, self._uri, self._sizes = source, uri, sizes
        self._bucket, self._prefix = client.bucket(bucket), name.rstrip("/") + "/"
        self._stop = threading.Event()

    def copy(self, files: list[FileInfo], on_bytes: OnBytes) -> None:
        with answering("list", self._uri):
            blobs = list_objects(self._bucket.client, self._bucket.name, prefix=self._prefix)
            there = {blob.name.removeprefix(self._prefix): blob for blob in blobs}
        whole = [info for info in files if self._part_bytes(info) >= info.size_bytes]
        self._send([(info, info.path, 0, info.size_bytes) for info in whole], there, on_bytes)
        for info in files:
            if info not in whole:
                self._send_in_parts(info, there, on_bytes)
        for info in files:
            self._check(info)

    def _part_bytes(self, info: FileInfo) -> int:
        return max(self._sizes.part_bytes, -(-info.size_bytes // MAX_PARTS))

    def _send_in_parts(self, info: FileInfo, there: Mapping[str, Any], on_bytes: OnBytes) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        step = self._part_bytes(info)
        starts = range(0, info.size_bytes, step)
        parts = [(info, f"{PARTS}{info.path}/{start // step:05d}-{step}", start, step) for start in starts]
        blobs = [self._bucket.blob(self._prefix + name) for _, name, _, _ in parts]
        if info.path in there:
            on_bytes(info.size_bytes)
        else:
            self._send(parts, there, on_bytes)
            self._create(info.path, functools.partial(self._compose, info.path, blobs))
        if info.path not in there or any(name in there for _, name, _, _ in parts):
            with answering("remove", self._uri):
                self._bucket.delete_blobs(blobs, on_error=lambda blob: None, retry=DEFAULT_RETRY)

    def _compose(self, path: str, blobs: list[Any]) -> None:
        self._bucket.blob(self._prefix + path).compose(blobs, if_generation_match=0)

    def _create(self, path: str, create: Callable[[], None]) -> None:
        from google.api_core.exceptions import PreconditionFailed

        with answering("write", f"{self._uri}/{path}"):
            try:
                create()
            except PreconditionFailed:
                return  # another upload of the same model made it; what it is, is checked afterwards

    def _send(self, slices: list[tuple[FileInfo, str, int, int]], there: Mapping[str, Any], on_bytes: OnBytes) -> None:
        from google.cloud.storage import transfer_manager

        pairs = []
        for info, name, start, length in slices:
            count = min(length, info.size_bytes - start)
            if name in there and there[name].size == count:
                on_bytes(count)
                continue
            blob = self._bucket.blob(self._prefix + name, chunk_size=self._sizes.chunk_bytes)
            pairs.append((_Slice(self._source, info.path, start, count, on_bytes, self._stop), blob))
        with answering("write", self._uri), ThreadPoolExecutor(1) as apart:
            sending = apart.submit(
                transfer_manager.upload_many,
                pairs,
                skip_if_exists=True,  # sends ifGenerationMatch=0, and lets an object that is there be
                upload_kwargs={"checksum": "crc32c", "content_type": "application/octet-stream"},
                worker_type=transfer_manager.THREAD,
                max_workers=self._sizes.workers,
                raise_exception=True,
            )
            # `upload_many` ends when all is sent, whatever happens in its thread; an interrupt comes to this one. One
            # that comes just before it waits does not wake it: so it looks again and again.
            try:
                while not wait([sending], _WAKE_S).done:
                    pass
                sending.result()
            except BaseException:
                self._stop.set()
                raise

    def _check(self, info: FileInfo) -> None:
        uri = f"{self._uri}/{info.path}"
        with answering("check", uri):
            blob = self._bucket.blob(self._prefix + info.path)
            blob.reload()
        if blob.crc32c != _crc32c(self._source, info.path):
            raise _differs(uri)


class _ServerSide:
    """From another place on Cloud Storage, without the bytes coming here."""

    def __init__(self, source: GcsDirectory, uri: str, client: Any) -> None:
        bucket, name = split_gs_uri(uri)
        self._uri, self._bucket, self._prefix = uri, client.bucket(bucket), name.rstrip("/") + "/"
        source_bucket, source_name = split_gs_uri(source.uri)
        self._source, self._source_prefix = client.bucket(source_bucket), source_name.rstrip("/") + "/"

    def copy(self, files: list[FileInfo], on_bytes: OnBytes) -> None:
        for info in files:
            self._copy(info.path)
            on_bytes(info.size_bytes)

    def _copy(self, path: str) -> None:
        from google.api_core.exceptions import PreconditionFailed

        uri = f"{self._uri}/{path}"
        with answering("copy", uri):
            source, target = self._source.blob(self._source_prefix + path), self._bucket.blob(self._prefix + path)
            source.reload()
            token = None
            try:
                while True:
                    token, _, _ = target.rewrite(
                        source, token, if_generation_match=0, if_source_generation_match=source.generation
                    )
                    if token is None:
                        break
            except PreconditionFailed:
                target.reload()  # there already; NotFound: the source changed meanwhile
        if target.crc32c != source.crc32c:
            raise _differs(uri)


class _Slice(io.RawIOBase):
    """A part of a file of a directory as a stream of its own, opened when it is first read, until `stop` is set."""

    def __init__(
        self, source: Directory, path: str, start: int, length: int, on_bytes: OnBytes, stop: threading.Event
    ) -> None:
        super().__init__()
        self._source, self._path, self._start, self._length, self._stop = source, path, start, length, stop
        self._position, self._told, self._on_bytes = 0, 0, on_bytes
        self._stream: BinaryIO | None = None
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise StorageError(
                "The upload was interrupted.",
                code="INTERRUPTED",
                fix="Run again; what was sent whole is found and kept.",
            )
        left = self._length - self._position
        count = left if size is None or size < 0 else min(size, left)
        if count <= 0:
            self.close_stream()
            return b""
        with self._lock:
            if self._stream is None:
                self._stream = self._source.stream(self._path)
            self._stream.seek(self._start + self._position)
            piece = self._stream.read(count)
        self._position += len(piece)
        if self._position > self._told:  # a retry reads again what was counted already
            self._on_bytes(self._position - self._told)
            self._told = self._position
        if self._position == self._length:
            self.close_stream()
        return piece

    def close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def close(self) -> None:
        self.close_stream()
        super().close()


def _crc32c(source: Directory, path: str) -> str:
    import google_crc32c

    checksum, file = google_crc32c.Checksum(), source.open(path)
    try:
        for chunk in iter_chunks(file):
            checksum.update(chunk)
    finally:
        file.close()
    return base64.b64encode(checksum.digest()).decode()


def _differs(uri: str) -> StorageError:
    return StorageError(
        f"{uri!r} is there already and is something else.",
        code="STAGED_DIFFERS",
        fix="Remove it, or give another place with --staging; nobody else should write there.",
    )
