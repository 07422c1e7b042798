"""Artifacts where the server is told they lie: a directory, or gs:// through TensorFlow, without a cloud SDK."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from servegraph.errors import StorageError
from servegraph.serve.versions import MODEL_FILES, version_directories

_VERSION = "1"


def copy_tree(source: str, target: str) -> None:
    """Copy everything below `source`, a path or gs:// URI, into the directory `target`.

    Raises:
        StorageError: it is not there, or cannot be read.
    """
    if "://" not in source:
        try:
            shutil.copytree(source, target, dirs_exist_ok=True)
        except (OSError, shutil.Error) as exc:
            raise StorageError(f"{source!r} cannot be copied: {exc}.") from exc
        return
    import tensorflow as tf

    try:
        for directory, _, files in tf.io.gfile.walk(source):
            below = Path(target, directory.removeprefix(source).lstrip("/"))
            below.mkdir(parents=True, exist_ok=True)
            for name in files:
                tf.io.gfile.copy(f"{directory.rstrip('/')}/{name}", str(below / name), overwrite=True)
    except (tf.errors.OpError, OSError) as exc:
        raise StorageError(f"{source!r} cannot be read: {exc}.", fix="Check the URI and the permissions.") from exc


def root_of(uri: str, name: str) -> Path:
    """Return a directory of models whose only model, `name`, is what lies at `uri`: a SavedModel or its versions.

    Raises:
        StorageError: it is not there, or cannot be read.
    """
    root = Path(tempfile.mkdtemp(prefix="servegraph-"))
    source = Path(uri)
    if "://" in uri:
        source = root / ".artifacts"
        copy_tree(uri, str(source))
    if not source.is_dir():
        raise StorageError(
            f"There is no directory {uri!r}.", fix="Give a SavedModel, or the directory of its versions."
        )
    if version_directories(source) and not any((source / file).is_file() for file in MODEL_FILES):
        (root / name).symlink_to(source.resolve())
    else:
        (root / name).mkdir()
        (root / name / _VERSION).symlink_to(source.resolve())
    return root
