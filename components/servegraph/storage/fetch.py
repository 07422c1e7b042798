"""A directory or a file on this machine, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

from servegraph.storage.data_files import match
from servegraph.storage.directory import local_path, open_dir


def fetch_directory(uri: str, into: Path) -> Path:
    """Return `uri` as a local directory: itself, or its files copied into `into`. Raises `StorageError`."""
    local = local_path(uri)
    if local is not None:
        return local
    source = open_dir(uri)
    for info in source.files():
        target = into / info.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.stream(info.path) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    return into


def fetch_file(uri: str, into: Path) -> Path:
    """Return `uri` as a local file: itself, or copied into the directory `into`. Raises `StorageError`."""
    local = local_path(uri)
    if local is not None:
        return local
    target = into / uri.rsplit("/", 1)[-1]
    with match(uri)[0].open() as stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    return target
