"""Artifacts where the server is told they lie: a directory, or gs:// through TensorFlow, without a cloud SDK.

TensorFlow reads Cloud Storage in a child, `python -m servegraph.serve.artifacts SOURCE TARGET`: what is stored with a
model is to be in the environment before TensorFlow is imported, and a signal ends a child at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from servegraph import own_module
from servegraph.errors import StorageError
from servegraph.serve.versions import model_names, version_directories
from servegraph.storage.directory import GRAPH_FILES

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
            raise StorageError(
                f"{source!r} cannot be copied: {exc}.",
                fix="See that it can be read, and that the disk it is copied to has space left.",
            ) from exc
        return
    command, environment = _reader(source, target)
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False)
    _check(source, done.returncode, done.stdout)


async def fetch(uri: str, root: Path, name: str) -> None:
    """Make of the empty directory `root` one of models; its only one, `name`, is what lies at `uri`: see `arrange`.

    Cancelled, it ends the child that reads.

    Raises:
        StorageError: it is not there, or cannot be read; see `copy_tree`.
    """
    if "://" not in uri:
        arrange(Path(uri), root, name)
        return
    source = root / ".artifacts"
    command, environment = _reader(uri, str(source))
    # In a session of its own: Ctrl-C reaches the server only, which then ends it.
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env=environment, start_new_session=True
    )
    try:
        told, _ = await child.communicate()
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
    assert child.returncode is not None
    _check(uri, child.returncode, told)
    arrange(source, root, name)


def arrange(source: Path, root: Path, name: str) -> None:
    """Link into the directory of models `root` what lies at `source`: a SavedModel or its versions become `name`.

    Where it is a directory of models, they keep their names.

    Raises:
        StorageError: there is no such directory.
    """
    if not source.is_dir():
        raise StorageError(
            f"There is no directory {str(source)!r}.", fix="Give a SavedModel, or the directory of its versions."
        )
    is_model = any((source / file).is_file() for file in GRAPH_FILES)
    if not is_model and (names := model_names(source)):
        for found in names:
            (root / found).symlink_to((source / found).resolve())
    elif not is_model and version_directories(source):
        (root / name).symlink_to(source.resolve())
    else:
        (root / name).mkdir()
        (root / name / _VERSION).symlink_to(source.resolve())


def _reader(source: str, target: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that copies `source` with TensorFlow, and its environment."""
    command = own_module.command("servegraph.serve.artifacts", source, target)
    return command, {**_SETTINGS, **os.environ, "GCS_STAT_CACHE_MAX_AGE": "0"}


def _check(source: str, code: int, told: bytes) -> None:
    """Raise as a `StorageError` what the reader ended with."""
    if not code:
        return
    try:
        error = json.loads(told)
    except ValueError:
        raise StorageError(
            f"{source!r} cannot be read: its reader ended with {code}.",
            fix="See what it wrote above; -9 is for lack of memory.",
        ) from None
    raise StorageError(error["message"], code=error["code"], fix=error["fix"])


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
        code, fix = _ERRORS.get(_kind(exc), ("STORAGE", "Check the URI and the permissions."))
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


def _kind(error: Exception) -> str:
    """Return the name of TensorFlow's error, one for all that is no answer.

    A host that is not found it does not ask again, and calls a precondition (`CurlHttpRequest::CURLcodeToStatus`).
    """
    name = type(error).__name__
    return "AbortedError" if name == "FailedPreconditionError" and "libcurl code" in _message(error) else name


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
