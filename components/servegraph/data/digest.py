"""The digest of data by its content."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Sequence

from servegraph import storage
from servegraph.data import census
from servegraph.storage import FileRef

_CHUNK_BYTES = 1 << 20


def data_digest(uris: Sequence[str]) -> str:
    """Return the SHA-256 over the MD5 of all files that the URIs name; where they lie does not count.

    An empty file is left out: it has no record to train on. Cloud Storage keeps the MD5 of an object, so that all but
    composed ones are not read.

    Raises:
        StorageError: a URI matches nothing, or a file cannot be read.
    """
    whole = hashlib.sha256()
    for uri in uris:
        for file in storage.match(str(census.DATA) if uri == census.NAME else uri) if uri else []:
            if file.size_bytes:
                whole.update(base64.b64decode(file.md5) if file.md5 else _md5(file))
        whole.update(b"|")
    return whole.hexdigest()


NOT_CACHED = "not-cached-"


def unlike_any() -> str:
    """Return what stands for a digest where the content is not known: never the same again, so never cached."""
    return f"{NOT_CACHED}{uuid.uuid4().hex}"


def _md5(file: FileRef) -> bytes:
    content = hashlib.md5(usedforsecurity=False)
    with file.open() as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            content.update(chunk)
    return content.digest()
