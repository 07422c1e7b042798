"""The objects of an emulated Cloud Storage and the rules they follow, without HTTP."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import google_crc32c
from tests.emulators.gcs_joining import combined, join

# What a caller may set on an object; everything else is the service's to say.
WRITABLE = frozenset(
    """name bucket contentType contentEncoding contentDisposition contentLanguage cacheControl metadata
    storageClass customTime crc32c md5Hash""".split()  # noqa: SIM905
)
_COPIED = WRITABLE - {"name", "bucket", "crc32c", "md5Hash"}
MAX_COMPONENTS = 32


class Rejection(Exception):
    """A request that the service refuses: its HTTP status and words."""

    def __init__(self, status: int, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.status, self.message, self.reason = status, message, reason


@dataclass(frozen=True)
class Content:
    """Stored bytes with their checksums, in a file so that large objects need no memory."""

    path: Path
    size: int
    crc32c: str
    md5: str


class Writing:
    """Bytes that arrive piece by piece and go to a file at once; zeros become a hole in it."""

    def __init__(self, folder: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=folder)
        os.close(descriptor)
        self.path, self.size = Path(name), 0
        self._md5, self._crc32c = hashlib.md5(usedforsecurity=False), google_crc32c.Checksum()

    def add(self, chunk: bytes) -> None:
        with self.path.open("r+b") as file:
            if chunk.count(0) == len(chunk):
                file.truncate(self.size + len(chunk))
            else:
                file.seek(self.size)
                file.write(chunk)
        self._md5.update(chunk)
        self._crc32c.update(chunk)
        self.size += len(chunk)

    def content(self) -> Content:
        return Content(self.path, self.size, _b64(self._crc32c.digest()), _b64(self._md5.digest()))


@dataclass
class StoredObject:
    """One object: its resource as the API shows it, and its bytes."""

    resource: dict[str, Any]
    content: Content


@dataclass
class Store:
    """All buckets. Every change happens under `lock`, so that of two racing writers exactly one wins."""

    url: str
    folder: Path
    buckets: dict[str, dict[str, StoredObject]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _generations: itertools.count[int] = field(default_factory=lambda: itertools.count(1_700_000_000_000_000))

    def bucket(self, name: str) -> dict[str, StoredObject]:
        if name not in self.buckets:
            raise Rejection(404, "The specified bucket does not exist.", "notFound")
        return self.buckets[name]

    def write(self, chunks: Iterable[bytes]) -> Content:
        """Store bytes that no object has yet."""
        writing = Writing(self.folder)
        for chunk in chunks:
            writing.add(chunk)
        return writing.content()

    def put(
        self,
        bucket: str,
        resource: Mapping[str, Any],
        content: Content,
        conditions: Mapping[str, str],
        *,
        components: int | None = None,
    ) -> dict[str, Any]:
        """Make or replace an object; `components` says how many it was put together from."""
        name = resource.get("name") or ""
        if unknown := set(resource) - WRITABLE:
            raise Rejection(400, f"Unknown or read-only field: {', '.join(sorted(unknown))}")
        if not name or len(name.encode()) > 1024 or "\n" in name or "\r" in name:
            raise Rejection(400, f"Invalid object name: {name!r}")
        for key, found in (("crc32c", content.crc32c), ("md5Hash", content.md5)):
            if resource.get(key, found) != found:
                raise Rejection(400, f"Provided {key} {resource[key]!r} doesn't match calculated {found!r}.")
        with self.lock:
            objects = self.bucket(bucket)
            check_conditions(objects.get(name), conditions)
            full = self._resource(bucket, name, content, components)
            full.update({key: value for key, value in resource.items() if key != "bucket"})
            objects[name] = StoredObject(full, content)
        return full

    def get(self, bucket: str, name: str, conditions: Mapping[str, str], prefix: str = "if") -> StoredObject:
        """Return an object whose conditions hold; `prefix` is `ifSource` for the source of a copy."""
        stored = self.bucket(bucket).get(name)
        generation = conditions.get("sourceGeneration" if prefix == "ifSource" else "generation")
        if stored is None or (generation and generation != stored.resource["generation"]):
            raise Rejection(404, f"No such object: {bucket}/{name}", "notFound")
        check_conditions(stored, conditions, prefix)
        return stored

    def check(self, bucket: str, name: str, conditions: Mapping[str, str]) -> None:
        """Refuse unless the preconditions hold on the object that `name` has or has not."""
        check_conditions(self.bucket(bucket).get(name), conditions)

    def patch(
        self, bucket: str, name: str, changes: Mapping[str, Any], conditions: Mapping[str, str]
    ) -> dict[str, Any]:
        with self.lock:
            resource = self.get(bucket, name, conditions).resource
            for key in WRITABLE & set(changes):
                if changes[key] is None:
                    resource.pop(key, None)
                else:
                    resource[key] = changes[key]
            resource["metageneration"] = str(int(resource["metageneration"]) + 1)
            resource["updated"] = _now()
            return resource

    def delete(self, bucket: str, name: str, conditions: Mapping[str, str]) -> None:
        with self.lock:
            self.get(bucket, name, conditions)
            del self.buckets[bucket][name]

    def copy(
        self,
        source: tuple[str, str],
        target: tuple[str, str],
        changes: Mapping[str, Any],
        conditions: Mapping[str, str],
    ) -> dict[str, Any]:
        with self.lock:
            original = self.get(*source, conditions, prefix="ifSource")
            kept = {key: original.resource[key] for key in _COPIED & set(original.resource)}
            kept.update({key: changes[key] for key in _COPIED & set(changes)})
            return self.put(target[0], {**kept, "name": target[1]}, original.content, conditions)

    def compose(
        self, bucket: str, name: str, request: Mapping[str, Any], conditions: Mapping[str, str]
    ) -> dict[str, Any]:
        """Make an object out of others, in order."""
        sources = request.get("sourceObjects", [])
        if not 1 <= len(sources) <= MAX_COMPONENTS:
            raise Rejection(400, f"The number of source components must be between 1 and {MAX_COMPONENTS}.")
        with self.lock:
            parts = [self.get(bucket, source["name"], _source_conditions(source)) for source in sources]
            content = self._joined([part.content for part in parts])
            count = sum(int(part.resource.get("componentCount", 1)) for part in parts)
            wanted = request.get("destination", {})
            destination = {key: wanted[key] for key in _COPIED & set(wanted)} | {"name": name}
            return self.put(bucket, destination, content, conditions, components=count)

    def _joined(self, parts: list[Content]) -> Content:
        """The parts one after the other; as on the service, no byte is hashed again."""
        descriptor, name = tempfile.mkstemp(dir=self.folder)
        os.close(descriptor)
        join([part.path for part in parts], Path(name))
        crc32c = combined([(int.from_bytes(base64.b64decode(part.crc32c), "big"), part.size) for part in parts])
        return Content(Path(name), sum(part.size for part in parts), _b64(crc32c.to_bytes(4, "big")), md5="")

    def list(self, bucket: str, query: Mapping[str, str]) -> dict[str, Any]:
        """One page of a listing, in byte order; `nextPageToken` while there is more."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        pattern = glob_pattern(query["matchGlob"]) if "matchGlob" in query else None
        limit = min(int(query.get("maxResults", 1000)), 1000)
        after = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
        page: dict[str, dict[str, Any] | None] = {}  # by name; None for a prefix
        with self.lock:
            for name, stored in sorted(self.bucket(bucket).items(), key=lambda item: item[0].encode()):
                if not name.startswith(prefix) or (pattern and not pattern.fullmatch(name)):
                    continue
                if not query.get("startOffset", "") <= name or name >= query.get("endOffset", "\U0010ffff"):
                    continue
                head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                key = prefix + head + cut if cut else name
                if key <= after:
                    continue
                if key not in page and len(page) == limit:
                    token = base64.urlsafe_b64encode(next(reversed(page)).encode()).decode()
                    return _listing(page) | {"nextPageToken": token}
                page[key] = None if cut else stored.resource
        return _listing(page)

    def _resource(self, bucket: str, name: str, content: Content, components: int | None) -> dict[str, Any]:
        generation, now = str(next(self._generations)), _now()
        link = f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
        resource = {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation}",
            "name": name,
            "bucket": bucket,
            "generation": generation,
            "metageneration": "1",
            "size": str(content.size),
            "crc32c": content.crc32c,
            "etag": _b64(generation.encode()),
            "storageClass": "STANDARD",
            "contentType": "application/octet-stream",
            "selfLink": self.url + link,
            "mediaLink": f"{self.url}/download{link}?generation={generation}&alt=media",
            "timeCreated": now,
            "updated": now,
        }
        # As on the service, an object made of others has no MD5.
        return resource | ({"md5Hash": content.md5} if components is None else {"componentCount": components})


def check_conditions(stored: StoredObject | None, conditions: Mapping[str, str], prefix: str = "if") -> None:
    """Refuse with 412 or 304 unless all preconditions hold; generation 0 is "does not exist"."""
    for kind in ("generation", "metageneration"):
        found = int(stored.resource[kind]) if stored else 0
        wanted = conditions.get(f"{prefix}{kind.capitalize()}Match")
        unwanted = conditions.get(f"{prefix}{kind.capitalize()}NotMatch")
        if wanted is not None and int(wanted) != found:
            raise Rejection(412, "At least one of the pre-conditions did not hold.", "conditionNotMet")
        if unwanted is not None and int(unwanted) == found:
            raise Rejection(304, "Not modified", "notModified")


def glob_pattern(glob: str) -> re.Pattern[str]:
    """`matchGlob` as a regular expression: `*`, `?` within a folder, `**` across; `[…]`, `{a,b}`."""
    translated = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")", ",": "|"}
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|\{|\}|,|[^*?\[{},]+|\[", glob)
    depth, parts = 0, []
    for token in tokens:
        if token == "," and not depth:
            parts.append(",")
        elif token.startswith("[") and len(token) > 1:
            parts.append(token.replace("[!", "[^"))
        else:
            parts.append(translated.get(token) or re.escape(token))
        depth += {"{": 1, "}": -1}.get(token, 0)
    return re.compile("".join(parts))


def _source_conditions(source: Mapping[str, Any]) -> dict[str, str]:
    found = {"generation": source.get("generation"), **(source.get("objectPreconditions") or {})}
    return {key: str(value) for key, value in found.items() if value is not None}


def _listing(page: Mapping[str, dict[str, Any] | None]) -> dict[str, Any]:
    items = [resource for resource in page.values() if resource is not None]
    prefixes = [name for name, resource in page.items() if resource is None]
    listing: dict[str, Any] = {"kind": "storage#objects"}
    return listing | ({"items": items} if items else {}) | ({"prefixes": prefixes} if prefixes else {})


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
