"""The ways to upload to the emulated Cloud Storage: one request, resumable, the XML API's multipart."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from tests.emulators.gcs_store import Rejection, Store, Writing
from tests.emulators.http_server import Answer, Request, json_answer

RESUMABLE_STEP_BYTES = 256 * 1024
XML_PART_MIN_BYTES = 5 * 1024 * 1024


@dataclass
class Session:
    """An upload that is under way."""

    bucket: str
    resource: dict[str, Any]
    conditions: Mapping[str, str]
    received: Writing | None = None  # of a resumable upload
    parts: dict[int, bytes] = field(default_factory=dict)  # of a multipart upload, by number
    finished: dict[str, Any] | None = None


@dataclass
class Uploads:
    """The upload routes over a store."""

    store: Store
    sessions: dict[str, Session] = field(default_factory=dict)

    def upload(self, request: Request, bucket: str) -> Answer:
        """`/upload/storage/v1/b/BUCKET/o`: the kind of upload is in the query."""
        self.store.bucket(bucket)
        kind, name = request.query.get("uploadType"), request.query.get("name")
        if kind == "media":
            resource = {"name": name, "contentType": request.headers.get("Content-Type")}
            return json_answer(self._put(bucket, resource, request.body, request.query))
        if kind == "multipart":
            resource, content = split_related(request)
            return json_answer(self._put(bucket, {"name": name, **resource}, content, request.query))
        if kind != "resumable":
            raise Rejection(400, f"Invalid uploadType: {kind!r}")
        if "upload_id" in request.query:
            return self._resume(request)
        resource = {"name": name, **request.json()}
        if media_type := request.headers.get("X-Upload-Content-Type"):
            resource.setdefault("contentType", media_type)
        # The service checks preconditions at the start as well as at the end.
        self.store.check(bucket, resource["name"], request.query)
        session_id = self._open(Session(bucket, resource, request.query, Writing(self.store.folder)))
        location = f"{self.store.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={session_id}"
        return Answer(headers={"Location": location, "X-GUploader-UploadID": session_id})

    def _resume(self, request: Request) -> Answer:
        session = self._session(request.query["upload_id"])
        if request.method == "DELETE":
            del self.sessions[request.query["upload_id"]]
            return Answer(499)
        if session.finished:
            return json_answer(session.finished)
        span = request.headers.get("Content-Range", f"bytes 0-{len(request.body) - 1}/{len(request.body)}")
        sent = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", span)
        if not sent:
            raise Rejection(400, f"Failed to parse Content-Range {span!r}.")
        first, last, total = sent.groups()
        if first is not None and int(last) - int(first) + 1 != len(request.body):
            raise Rejection(400, "Content-Range does not match the length of the body.")
        received = session.received
        assert received is not None
        if first is not None and int(first) != received.size:
            return _continue_from(received.size)  # a repeated or a skipped chunk: say where to go on
        received.add(request.body)
        if total == "*" or received.size < int(total):
            if len(request.body) % RESUMABLE_STEP_BYTES:
                raise Rejection(400, "Chunks before the last must be multiples of 256 KiB.")
            return _continue_from(received.size)
        session.finished = self.store.put(session.bucket, session.resource, received.content(), session.conditions)
        return json_answer(session.finished)

    def begin_or_complete(self, request: Request, bucket: str, name: str) -> Answer:
        """`POST /BUCKET/NAME?uploads` opens a multipart upload, `?uploadId=ID` completes it."""
        self.store.bucket(bucket)
        if "uploads" in request.query:
            media_type = request.headers.get("Content-Type")
            resource = {"name": name} | ({"contentType": media_type} if media_type else {})
            session_id = self._open(Session(bucket, resource, {}))
            return _xml("InitiateMultipartUploadResult", Bucket=bucket, Key=name, UploadId=session_id)
        session = self._session(request.query.get("uploadId", ""))
        numbers = [int(number) for number in re.findall(rb"<PartNumber>(\d+)<", request.body)]
        if not numbers or set(numbers) - set(session.parts):
            raise Rejection(400, "One or more of the specified parts could not be found.", "InvalidPart")
        if any(len(session.parts[number]) < XML_PART_MIN_BYTES for number in numbers[:-1]):
            raise Rejection(400, "Your proposed upload is smaller than the minimum.", "EntityTooSmall")
        content = self.store.write(session.parts[number] for number in numbers)
        resource = self.store.put(bucket, session.resource, content, {}, components=len(numbers))
        del self.sessions[request.query["uploadId"]]
        return _xml("CompleteMultipartUploadResult", Bucket=bucket, Key=name, ETag=resource["etag"])

    def add_part(self, request: Request, bucket: str, name: str) -> Answer:
        """`PUT /BUCKET/NAME?partNumber=N&uploadId=ID`."""
        session = self._session(request.query.get("uploadId", ""))
        part = self.store.write([request.body])
        for claim in request.headers.get("x-goog-hash", "").split(","):
            kind, _, value = claim.strip().partition("=")
            if kind and value != getattr(part, kind):
                raise Rejection(400, f"The {kind} you specified did not match what we received.", "BadDigest")
        session.parts[int(request.query["partNumber"])] = request.body
        return Answer(headers={"ETag": f'"{part.md5}"', "x-goog-hash": f"crc32c={part.crc32c},md5={part.md5}"})

    def abort(self, request: Request, bucket: str, name: str) -> Answer:
        """`DELETE /BUCKET/NAME?uploadId=ID`."""
        self._session(request.query.get("uploadId", ""))
        del self.sessions[request.query["uploadId"]]
        return Answer(204)

    def _open(self, session: Session) -> str:
        session_id = f"session-{len(self.sessions)}-{id(session)}"
        self.sessions[session_id] = session
        return session_id

    def _session(self, session_id: str) -> Session:
        if session_id not in self.sessions:
            raise Rejection(404, "The upload session was not found.", "notFound")
        return self.sessions[session_id]

    def _put(
        self, bucket: str, resource: dict[str, Any], content: bytes, conditions: Mapping[str, str]
    ) -> dict[str, Any]:
        return self.store.put(bucket, resource, self.store.write([content]), conditions)


def split_related(request: Request) -> tuple[dict[str, Any], bytes]:
    """Return the resource and the content of a multipart/related body."""
    boundary = re.search(r"""boundary=["']*([^"';]+)""", request.headers["Content-Type"])
    assert boundary
    mark = b"--" + boundary[1].encode()
    _, first, rest = request.body.split(mark, 2)
    head, content = re.split(rb"\r?\n\r?\n", rest[: rest.rindex(mark)], maxsplit=1)
    resource = json.loads(re.split(rb"\r?\n\r?\n", first, maxsplit=1)[1])
    if media_type := re.search(rb"content-type:\s*([^\r\n]+)", head, re.IGNORECASE):
        resource.setdefault("contentType", media_type[1].decode())
    return resource, content.removesuffix(b"\n").removesuffix(b"\r")


def _continue_from(received: int) -> Answer:
    return Answer(308, {"Range": f"bytes=0-{received - 1}"} if received else {})


def _xml(root: str, **elements: str) -> Answer:
    inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in elements.items())
    text = f'<?xml version="1.0"?><{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{root}>'
    return Answer(200, {"Content-Type": "application/xml"}, text.encode())
