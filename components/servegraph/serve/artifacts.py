"""Artifacts where the server is told they lie: a directory, or gs:// through TensorFlow, without a cloud SDK.

TensorFlow reads Cloud Storage in a child, `python -m servegraph.serve.artifacts SOURCE TARGET`: what is stored with a
model is to be in the environment before TensorFlow is imported, and a signal ends a child at once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from servegraph.errors import StorageError
from servegraph.serve.versions import MODEL_FILES, model_names, version_directories

_VERSION = "1"
# Of TensorFlow's client, which by default tries for four minutes and says nothing: here for half a minute.
_SETTINGS = {"TF_CPP_MIN_LOG_LEVEL": "2", "GCS_RETRY_CONFIG_MAX_RETRIES": "5"}
# By TensorFlow's error: code, what to do.
_ERRORS = {
    "NotFoundError": ("NOT_FOUND", "Check the names of the bucket and the prefix."),
    "PermissionDeniedError": (
        "NO_ACCESS",
        "Grant the account that the server runs as storage.objects.get and storage.objects.list.",
    ),
    "AbortedError": ("UNREACHABLE", "Check the network and status.cloud.google.com, then start again."),
    "UnauthenticatedError": ("NO_CREDENTIALS", "Run it as a service account, or set GOOGLE_APPLICATION_CREDENTIALS."),
}


def copy_tree(source: str, target: str) -> None:
    """Copy everything below `source`, a path or gs:// URI, into the directory `target`.

    Raises:
        StorageError: it is not there (code `NOT_FOUND`), may not be read (`NO_ACCESS`), is overwritten meanwhile
            (`CHANGED`), cannot be reached (`UNREACHABLE`), or cannot be read.
    """
    if "://" not in source:
        try:
            shutil.copytree(source, target, dirs_exist_ok=True)
        except (OSError, shutil.Error) as exc:
            raise StorageError(f"{source!r} cannot be copied: {exc}.") from exc
        return
    command = [sys.executable, "-m", "servegraph.serve.artifacts", source, target]
    environment = {**_SETTINGS, **os.environ, "GCS_STAT_CACHE_MAX_AGE": "0"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        try:
            told = json.loads(done.stdout)
        except ValueError:
            raise StorageError(f"{source!r} cannot be read: its reader ended with {done.returncode}.") from None
        raise StorageError(told["message"], code=told["code"], fix=told["fix"])


def root_of(uri: str, name: str) -> Path:
    """Return a directory of models whose only model, `name`, is what lies at `uri`: a SavedModel or its versions.

    Where it is a directory of models, they keep their names. What is returned is the caller's to remove.

    Raises:
        StorageError: it is not there, or cannot be read; see `copy_tree`.
    """
    root = Path(tempfile.mkdtemp(prefix="servegraph-"))
    try:
        source = Path(uri)
        if "://" in uri:
            source = root / ".artifacts"
            copy_tree(uri, str(source))
        if not source.is_dir():
            raise StorageError(
                f"There is no directory {uri!r}.", fix="Give a SavedModel, or the directory of its versions."
            )
        is_model = any((source / file).is_file() for file in MODEL_FILES)
        if not is_model and (names := model_names(source)):
            for found in names:
                (root / found).symlink_to((source / found).resolve())
        elif not is_model and version_directories(source):
            (root / name).symlink_to(source.resolve())
        else:
            (root / name).mkdir()
            (root / name / _VERSION).symlink_to(source.resolve())
    except BaseException:
        shutil.rmtree(root)
        raise
    return root


def read_with_tensorflow(source: str, target: Path) -> None:
    """Copy what lies below the URI `source` into `target`. TensorFlow asks for parts of a file, of no certain
    generation: each has to be at the end what it was at the beginning.

    Raises:
        StorageError: see `copy_tree`.
    """
    import tensorflow as tf

    source = source.rstrip("/")
    try:
        before = _stats(tf.io.gfile, source)
        for path in before:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            tf.io.gfile.copy(f"{source}/{path}", str(target / path), overwrite=True)
        after = _stats(tf.io.gfile, source)
    except (tf.errors.OpError, OSError) as exc:
        code, fix = _ERRORS.get(type(exc).__name__, ("STORAGE", "Check the URI and the permissions."))
        raise StorageError(f"{source!r} cannot be read: {_message(exc)}", code=code, fix=fix) from exc
    if not before:
        code, fix = _ERRORS["NotFoundError"]
        raise StorageError(f"There is nothing at {source!r}.", code=code, fix=fix)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    changed |= {path for path, (size_bytes, _) in before.items() if (target / path).stat().st_size != size_bytes}
    if changed:
        raise StorageError(
            f"{source!r} was written to while it was read: {', '.join(sorted(changed))}.",
            code="CHANGED",
            fix="Start again; write each version below a name of its own.",
        )


def _stats(gfile: Any, source: str) -> dict[str, tuple[int, int]]:
    """Return size and time of last change by path below `source`."""
    gfile.stat(source)  # to `walk` what may not be read is not there
    found = {}
    for directory, _, files in gfile.walk(source):
        below = directory.removeprefix(source).strip("/")
        for name in files:
            path = f"{below}/{name}".lstrip("/")
            stat = gfile.stat(f"{source}/{path}")
            found[path] = (stat.length, stat.mtime_nsec)
    return found


def _message(error: Any) -> str:
    return str(getattr(error, "message", error)).split(" with body '")[0]


def main(arguments: list[str]) -> int:
    """Copy, and say on stdout why not where that fails."""
    source, target = arguments
    try:
        read_with_tensorflow(source, Path(target))
    except StorageError as exc:
        print(json.dumps({"message": exc.message, "code": exc.code, "fix": exc.fix}))
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
