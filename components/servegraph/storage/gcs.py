"""A directory on Cloud Storage: all objects of a bucket whose names start with a prefix.

Everything goes through google-cloud-storage, imported at the first request, so that its settings hold here
too: application default credentials, `STORAGE_EMULATOR_HOST`, retries. An object is read at the generation
that was seen first: a file that is overwritten while it is read is an error, never a mixture of two.
Source: https://cloud.google.com/storage/docs/json_api and https://cloud.google.com/storage/docs/consistency.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from weakref import WeakSet

from servegraph.errors import StorageError
from servegraph.storage import google_credentials
from servegraph.storage.directory import FileInfo, as_stream, checked_path
from servegraph.storage.unreachable import FIX, FIX_TLS, giving_up, is_unreachable, untrusted

_CLIENTS_ANSWERED: WeakSet[Any] = WeakSet()  # those that have reached Cloud Storage
# One row per HTTP status: code, what to do.
_ANSWERS = {
    400: ("BAD_URI", "Check the names of the bucket and the object."),
    401: ("NO_CREDENTIALS", google_credentials.FIX),
    403: (
        "NO_ACCESS",
        "Grant the account storage.objects.get and .list (to write, also .create and .delete).",
    ),
    404: ("NOT_FOUND", "Check the names of the bucket and the object."),
    412: ("CHANGED", "Something else wrote to it at the same time; run again."),
}


@dataclass(frozen=True)
class _Version:
    """One generation of an object."""

    size_bytes: int
    generation: int


class GcsDirectory:
    """The objects below `gs://bucket/prefix`. See `Directory` for the contract."""

    def __init__(self, uri: str, client: Any = None) -> None:
        """Name the directory `uri`; nothing is read. `client` is a `google.cloud.storage.Client`."""
        self._bucket_name, prefix = split_gs_uri(uri)
        self._uri = uri.rstrip("/")
        self._prefix = prefix.rstrip("/") + "/" if prefix else ""
        self._given_client = client
        self._seen: dict[str, _Version] = {}  # by path, so that a listed file opens without a request

    @property
    def uri(self) -> str:
        """`gs://bucket/prefix` without a trailing slash."""
        return self._uri

    def files(self) -> list[FileInfo]:
        """All objects below, sorted by path; markers of folders (names that end with `/`) are left out."""
        client = self._bucket.client
        with answering("list", self._uri):
            blobs = list_objects(client, self._bucket_name, prefix=self._prefix)
            self._seen = {blob.name.removeprefix(self._prefix): _Version(blob.size, blob.generation) for blob in blobs}
        if not self._seen:
            raise StorageError(
                f"Cannot list {self._uri!r}: there is no object below it.",
                code="NOT_FOUND",
                fix="Check the names of the bucket and the prefix.",
            )
        return [FileInfo(path, version.size_bytes) for path, version in sorted(self._seen.items())]

    def open(self, path: str) -> GcsFile:
        """Open an object for reading at random: no request if it was listed, else one for its size."""
        blob = self._blob(path)
        if path not in self._seen:
            with answering("read", f"{self._uri}/{path}"):
                blob.reload()
            self._seen[path] = _Version(blob.size, blob.generation)
        version = self._seen[path]
        return GcsFile(self._bucket, blob.name, version.size_bytes, version.generation)

    def read_bytes(self, path: str) -> bytes:
        """Return a whole object, checked against its CRC32C."""
        blob, seen = self._blob(path), self._seen.get(path)
        with answering("read", f"{self._uri}/{path}"):
            content: bytes = blob.download_as_bytes(
                raw_download=True, if_generation_match=seen.generation if seen else None
            )
            return content

    def stream(self, path: str) -> BinaryIO:
        """Open an object for reading from its start."""
        return as_stream(self.open(path))

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a whole object; Cloud Storage shows it only when it is complete and its CRC32C is right."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        blob = self._blob(path)
        with answering("write", f"{self._uri}/{path}"):
            # By default it retries only under a precondition; the same content twice does no harm either.
            blob.upload_from_string(
                content, content_type="application/octet-stream", checksum="crc32c", retry=DEFAULT_RETRY
            )
        self._seen.pop(path, None)

    def _blob(self, path: str) -> Any:
        return self._bucket.blob(self._prefix + checked_path(path, self._uri))

    @functools.cached_property
    def _bucket(self) -> Any:
        client = self._given_client or default_client(self._uri)
        return client.bucket(self._bucket_name)


class GcsFile:
    """One generation of an object, read at random. See `RandomAccess` for the contract."""

    def __init__(self, bucket: Any, name: str, size_bytes: int, generation: int) -> None:
        """Read object `name` of the SDK's `bucket`, which is `size_bytes` long at `generation`."""
        self._bucket = bucket
        self._name = name
        self._generation = generation
        self.size_bytes = size_bytes

    def pread(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` with one request; fewer only at the end of the file."""
        end = min(offset + length, self.size_bytes)
        if end <= offset:
            return b""
        with answering("read", f"gs://{self._bucket.name}/{self._name}"):
            # A blob remembers the generation it saw and would then ask for that one: 404 where 412 says more.
            piece: bytes = self._bucket.blob(self._name).download_as_bytes(
                start=offset,
                end=end - 1,
                raw_download=True,
                if_generation_match=self._generation,
                checksum=None,  # of a part there is none to compare with
            )
            return piece

    def close(self) -> None:
        """Nothing is held."""


def split_gs_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and the object name or prefix of `gs://bucket/name`; the name may be empty.

    Raises:
        StorageError: no bucket is named (code `BAD_URI`).
    """
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not bucket:
        raise StorageError(f"{uri!r} names no bucket.", code="BAD_URI", fix="Give gs://bucket/name.")
    return bucket, name


def default_client(uri: str) -> Any:
    """Return a client as the environment configures it.

    Raises:
        StorageError: there is no SDK (code `PACKAGE_MISSING`), or there are no credentials (code `NO_CREDENTIALS`).
    """
    try:
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud import storage
    except ImportError as exc:
        raise StorageError(
            f"{uri!r} is on Cloud Storage, and google-cloud-storage is not installed.",
            code="PACKAGE_MISSING",
            fix="pip install 'servegraph[cloud]'",
        ) from exc
    code, fix = _ANSWERS[401]
    if not os.environ.get("STORAGE_EMULATOR_HOST") and (what := google_credentials.problem()):
        raise StorageError(f"Cannot reach {uri!r}: {what}", code=code, fix=fix)
    try:
        return storage.Client()
    except OSError:  # no project is configured, and objects need none
        return storage.Client(project=None)
    except DefaultCredentialsError as exc:
        raise StorageError(f"Cannot reach {uri!r}: {exc}", code=code, fix=fix) from exc


def list_objects(client: Any, bucket: str, **selection: str) -> list[Any]:
    """Return the blobs that `selection` (`prefix`, `match_glob`) names, without markers of folders."""
    fields = "items(name,size,generation,contentEncoding,md5Hash),nextPageToken"
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry = DEFAULT_RETRY
    if client not in _CLIENTS_ANSWERED:  # a listing comes first whatever is done
        retry = retry.with_predicate(giving_up(retry._predicate, "Cloud Storage"))
    blobs = list(client.list_blobs(bucket, fields=fields, retry=retry, **selection))
    _CLIENTS_ANSWERED.add(client)
    return [blob for blob in blobs if not blob.name.endswith("/")]


@contextlib.contextmanager
def answering(verb: str, uri: str) -> Iterator[None]:
    """Turn an error of the SDK in the block into a `StorageError` that says what was done to which object."""
    from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except StorageError:
        raise
    except (GoogleAPICallError, InvalidResponse) as exc:
        status = int(exc.code if isinstance(exc, GoogleAPICallError) else exc.response.status_code)
        code, fix = _ANSWERS.get(status, ("STORAGE", "Run again; if it stays, see status.cloud.google.com."))
        raise StorageError(
            f"Cannot {verb} {uri!r}: Cloud Storage answered {status} ({_detail(exc)}).", code=code, fix=fix
        ) from exc
    except GoogleAuthError as exc:
        code, fix = ("UNREACHABLE", FIX) if is_unreachable(exc) else _ANSWERS[401]
        raise StorageError(f"Cannot {verb} {uri!r}: {exc}", code=code, fix=fix) from exc
    except DataCorruption as exc:
        raise StorageError(
            f"Cannot {verb} {uri!r}: its CRC32C is wrong.",
            code="DAMAGED",
            fix="Run again; the transfer failed.",
        ) from exc
    except (GoogleAPIError, OSError) as exc:  # the errors of `requests` are OSErrors
        if is_unreachable(exc):
            why = untrusted(exc)
            what = "Cloud Storage cannot be reached" + (f" ({why})" if why else "")
            raise StorageError(
                f"Cannot {verb} {uri!r}: {what}.", code="UNREACHABLE", fix=FIX_TLS if why else FIX
            ) from exc
        raise StorageError(
            f"Cannot {verb} {uri!r}: {exc}", code="UNREACHABLE", fix="Check the network, then run again."
        ) from exc


def _detail(exc: Any) -> str:
    """What the service said: the message of its JSON, or its text."""
    text = exc.response.text if exc.response is not None else str(exc)
    try:
        message: str = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = text
    return message.strip().rstrip(".")[:200]
