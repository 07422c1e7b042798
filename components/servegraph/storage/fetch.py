"""A directory or a file on this machine, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import BinaryIO

from servegraph.storage.data_files import match
from servegraph.storage.directory import checked_path, local_path, open_dir
from servegraph.storage.local import answering


def fetch_directory(uri: str, into: Path) -> Path:
    """Return `uri` as a local directory: itself, or its files copied into `into`.

    Raises:
        StorageError: it cannot be read or written, or an object's name leads out of `into` (code `BAD_PATH`).
    """
    local = local_path(uri)
    if local is not None:
        return local
    source = open_dir(uri)
    for info in source.files():
        target = into / checked_path(info.path, uri)
        with source.stream(info.path) as stream:
            _copy(stream, target)
    return into


def fetch_file(uri: str, into: Path) -> Path:
    """Return `uri` as a local file: itself, or copied into the directory `into`. Raises `StorageError`."""
    local = local_path(uri)
    if local is not None:
        return local
    target = into / checked_path(uri.rsplit("/", 1)[-1], uri)
    with match(uri)[0].open() as stream:
        _copy(stream, target)
    return target


def _copy(stream: BinaryIO, target: Path) -> None:
    with answering("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
