"""An emulated Cloud Storage on loopback, for the real client library.

    with FakeGcs() as fake:
        fake.put("bucket", "name", b"content")
        client = fake.client()

`fake.calls` is the log of requests and answers; `fake.fail_next(503)` makes the next request fail.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from tests.emulators.gcs_store import Content, Rejection, Store, StoredObject
from tests.emulators.gcs_uploads import Uploads
from tests.emulators.http_server import Answer, LoopbackServer, Request, json_answer

# The client fetches a bucket's metadata for its traces in a thread of its own, at no certain time.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")

# A parameter that is not here would be ignored, and the test that sends it would prove nothing.
KNOWN_PARAMETERS = frozenset(
    """alt fields prettyPrint projection project userProject name generation sourceGeneration
    uploadType upload_id uploads uploadId partNumber
    prefix delimiter matchGlob maxResults pageToken startOffset endOffset
    ifGenerationMatch ifGenerationNotMatch ifMetagenerationMatch ifMetagenerationNotMatch
    ifSourceGenerationMatch ifSourceGenerationNotMatch
    ifSourceMetagenerationMatch ifSourceMetagenerationNotMatch""".split()  # noqa: SIM905
)


class FakeGcs(LoopbackServer):
    """The server, as a context manager; its files are removed at the end."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.store = Store(self.url, Path(tempfile.mkdtemp(prefix="fake-gcs-")))
        self._uploads = Uploads(self.store)
        self._failures: list[int] = []
        bucket, obj, xml = r"/storage/v1/b/([^/]+)", r"/storage/v1/b/([^/]+)/o/([^/]+)", r"/([^/]+)/(.+)"
        self._routes = [
            ("POST", "/storage/v1/b", self._create_bucket),
            ("GET", bucket, self._get_bucket),
            ("DELETE", bucket, self._delete_bucket),
            ("GET", bucket + "/o", self._list),
            ("GET", obj, self._get),
            ("PATCH", obj, self._patch),
            ("DELETE", obj, self._delete),
            ("POST", obj + "/compose", self._compose),
            ("POST", obj + "/rewriteTo/b/([^/]+)/o/([^/]+)", self._rewrite),
            ("GET", "/download" + obj, self._download),
            ("POST|PUT|DELETE", "/upload" + bucket + "/o", self._uploads.upload),
            ("GET|HEAD", xml, self._download),
            ("POST", xml, self._uploads.begin_or_complete),
            ("PUT", xml, self._uploads.add_part),
            ("DELETE", xml, self._uploads.abort),
        ]

    def client(self) -> Any:
        """A real client that speaks to this server, without credentials. Close it at the end."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        return storage.Client(
            project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": self.url}
        )

    def make_bucket(self, bucket: str) -> None:
        """Make an empty bucket without a request."""
        self.store.buckets.setdefault(bucket, {})

    def put(self, bucket: str, name: str, content: bytes | Path, **resource: Any) -> dict[str, Any]:
        """Put an object there without a request. A `Path` gets no checksums: it may be large and sparse."""
        self.make_bucket(bucket)
        if isinstance(content, Path):
            stored = Content(content, content.stat().st_size, crc32c="", md5="")
        else:
            stored = self.store.write([content])
        return self.store.put(bucket, {"name": name, **resource}, stored, {})

    def names(self, bucket: str) -> list[str]:
        """The names of all objects of a bucket."""
        return sorted(self.store.bucket(bucket))

    def content(self, bucket: str, name: str) -> bytes:
        """The bytes of an object."""
        return self.store.bucket(bucket)[name].content.path.read_bytes()

    def fail_next(self, status: int, times: int = 1) -> None:
        """Answer the next `times` requests with the error `status`, before anything is done."""
        self._failures += [status] * times

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            shutil.rmtree(self.store.folder, ignore_errors=True)

    def _respond(self, request: Request) -> Answer:
        try:
            if self._failures:
                raise Rejection(self._failures.pop(0), "Injected by the test.", "injected")
            if unknown := set(request.query) - KNOWN_PARAMETERS:
                raise Rejection(400, f"Unknown parameter: {', '.join(sorted(unknown))}")
            for methods, pattern, handle in self._routes:
                found = re.fullmatch(pattern, request.path)
                if found and request.method in methods.split("|"):
                    return handle(request, *map(unquote, found.groups()))
            raise Rejection(404, f"No such route: {request.method} {request.path}", "notFound")
        except Rejection as refusal:
            reasons = [{"reason": refusal.reason, "message": refusal.message}]
            error = {"code": refusal.status, "message": refusal.message, "errors": reasons}
            return json_answer({"error": error}, refusal.status)

    def _create_bucket(self, request: Request) -> Answer:
        name = request.json()["name"]
        with self.store.lock:
            if name in self.store.buckets:
                raise Rejection(409, "Your previous request to create the named bucket succeeded.", "conflict")
            self.store.buckets[name] = {}
        return self._get_bucket(request, name)

    def _get_bucket(self, request: Request, bucket: str) -> Answer:
        self.store.bucket(bucket)
        return json_answer({"kind": "storage#bucket", "id": bucket, "name": bucket, "metageneration": "1"})

    def _delete_bucket(self, request: Request, bucket: str) -> Answer:
        with self.store.lock:
            if self.store.bucket(bucket):
                raise Rejection(409, "The bucket you tried to delete is not empty.", "conflict")
            del self.store.buckets[bucket]
        return Answer(204)

    def _list(self, request: Request, bucket: str) -> Answer:
        return json_answer(select(self.store.list(bucket, request.query), request.query.get("fields")))

    def _get(self, request: Request, bucket: str, name: str) -> Answer:
        if request.query.get("alt") == "media":
            return self._download(request, bucket, name)
        stored = self.store.get(bucket, name, request.query)
        return json_answer(select(stored.resource, request.query.get("fields")))

    def _download(self, request: Request, bucket: str, name: str) -> Answer:
        return media(request, self.store.get(bucket, name, request.query))

    def _patch(self, request: Request, bucket: str, name: str) -> Answer:
        return json_answer(self.store.patch(bucket, name, request.json(), request.query))

    def _delete(self, request: Request, bucket: str, name: str) -> Answer:
        self.store.delete(bucket, name, request.query)
        return Answer(204)

    def _compose(self, request: Request, bucket: str, name: str) -> Answer:
        return json_answer(self.store.compose(bucket, name, request.json(), request.query))

    def _rewrite(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> Answer:
        resource = self.store.copy((bucket, name), (to_bucket, to_name), request.json(), request.query)
        size = resource["size"]
        done = {"done": True, "objectSize": size, "totalBytesRewritten": size, "resource": resource}
        return json_answer({"kind": "storage#rewriteResponse", **done})


def media(request: Request, stored: StoredObject) -> Answer:
    """The bytes of an object: all of them, or the range that was asked for."""
    resource, content = stored.resource, stored.content
    checksums = {"crc32c": resource["crc32c"], "md5": resource.get("md5Hash")}
    headers = {
        "Content-Type": resource["contentType"],
        "ETag": resource["etag"],
        "x-goog-generation": resource["generation"],
        "x-goog-metageneration": resource["metageneration"],
        "x-goog-stored-content-length": resource["size"],
        "x-goog-hash": ",".join(f"{kind}={value}" for kind, value in checksums.items() if value),
    }
    if resource.get("contentEncoding") == "gzip":
        if "gzip" not in request.headers.get("Accept-Encoding", ""):  # decompressive transcoding
            return Answer(200, headers, gzip.decompress(content.path.read_bytes()))
        headers["Content-Encoding"] = "gzip"
    asked = re.fullmatch(r"bytes=(?:(\d+)-(\d*)|-(\d+))", request.headers.get("Range") or "")
    if not asked:
        return Answer(200, headers, content.path.read_bytes())
    first, last, suffix = asked.groups()
    start = int(first) if first else max(0, content.size - int(suffix))
    end = min(int(last), content.size - 1) if last else content.size - 1
    if start >= content.size:
        return Answer(416, {"Content-Range": f"bytes */{content.size}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{content.size}"
    with content.path.open("rb") as file:
        file.seek(start)
        return Answer(206, headers, file.read(end - start + 1))


def select(document: dict[str, Any], fields: str | None) -> dict[str, Any]:
    """Leave only what a `fields` mask names, such as `name,size` or `items(name,size),nextPageToken`."""
    if not fields:
        return document
    selected = {}
    for name, inner in re.findall(r"(\w+)(?:\(([^)]*)\))?", fields):
        if name in document:
            value = document[name]
            selected[name] = [select(item, inner) for item in value] if inner else value
    return selected
