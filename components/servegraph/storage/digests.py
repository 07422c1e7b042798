"""Digests of files by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """Return `sha256:…` over the bytes of a file on this machine, read a piece at a time. Raises `OSError`."""
    whole = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            whole.update(chunk)
    return f"sha256:{whole.hexdigest()}"
