"""Putting a model's files where they can be published by one rename: copied, made durable, digest checked."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from servegraph.errors import DeployRefused, StorageError
from servegraph.savedmodel.layout import content_digest
from servegraph.serve.state import sync_directory
from servegraph.storage import Directory, FileInfo, open_dir
from servegraph.storage.directory import GRAPH_FILES
from servegraph.storage.local import answering

PREFIX = ".staging-"
_CHUNK_BYTES = 1 << 20


def make_staging(model_dir: Path) -> Path:
    """Make and return a new directory for one deploy below `model_dir`; servers do not look into it.

    Raises:
        StorageError: it cannot be made.
    """
    path = model_dir / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    with answering("make", path):
        path.mkdir()
    return path


def leftovers(model_dir: Path) -> tuple[str, ...]:
    """Return the names of staging directories of deploys that did not end well. Only sure under the lock."""
    with answering("list", model_dir):
        try:
            return tuple(sorted(entry.name for entry in model_dir.iterdir() if entry.name.startswith(PREFIX)))
        except FileNotFoundError:
            return ()


def copy_model(source: Directory, destination: Path, digest: str, on_file: Callable[[str], None]) -> None:
    """Copy all files of `source` into the new `destination`, `saved_model.pb` last, and check the digest.

    Raises:
        DeployRefused: the files are not those that `digest` was taken of (code `MODEL_CHANGED`).
        StorageError: a file cannot be read or written, a link leads out of the model (code `LINK_OUTSIDE`),
        or there
            is no room (`DISK_FULL`).
    """
    files = sorted(source.files(), key=lambda info: (info.path in GRAPH_FILES, info.path))
    with answering("make", destination):
        destination.mkdir(parents=True)
    _check_room(destination, sum(info.size_bytes for info in files))
    for info in files:
        on_file(info.path)
        _copy_file(source, info, destination)
    with answering("write", destination):
        for directory, _, _ in os.walk(destination):
            sync_directory(Path(directory))
    if content_digest(open_dir(destination)) != digest:
        raise DeployRefused(
            f"The files of {source.uri!r} changed while they were copied.",
            code="MODEL_CHANGED",
            fix="Deploy again once nothing writes to the model.",
        )


def remove_tree(path: Path) -> None:
    """Remove a directory or a link to one; one that is already gone is fine.

    Raises:
        StorageError: something in it cannot be removed.
    """
    with answering("remove", path):
        if path.is_symlink():
            path.unlink(missing_ok=True)
        elif path.exists():
            shutil.rmtree(path)


def _copy_file(source: Directory, info: FileInfo, destination: Path) -> None:
    target = destination / info.path
    with source.stream(info.path) as reader, answering("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as writer:
            shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
            writer.flush()
            os.fsync(writer.fileno())


def _check_room(directory: Path, size_bytes: int) -> None:
    """Say at once what would otherwise come after minutes of copying."""
    with answering("write", directory):
        free_bytes = shutil.disk_usage(directory).free
    if free_bytes < size_bytes:
        raise StorageError(
            f"The model has {size_bytes:,} bytes, there is room for {free_bytes:,} in {str(directory)!r}.",
            code="DISK_FULL",
            fix="Free space there, undeploy old versions, or deploy to another root.",
        )
