"""One change of a model at a time: a lock that the kernel releases when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from servegraph.errors import DeployRefused
from servegraph.storage.local import answering

LOCK_FILE = ".lock"
_POLL_S = 0.1


@contextlib.contextmanager
def locked(directory: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock of `directory`, which is made where it does not exist; wait for it up to `timeout_s`.

    Raises:
        DeployRefused: another process holds it; the message says which (code `LOCKED`).
        StorageError: the directory cannot be written.
    """
    path = directory / LOCK_FILE
    descriptor = _acquire(path, time.monotonic() + timeout_s, timeout_s)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, deadline_s: float, timeout_s: float) -> int:
    while True:
        with answering("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                continue  # the holder has just removed the whole model
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(descriptor, path):
                _sign(descriptor)
                return descriptor
            os.close(descriptor)  # the holder removed the model and the file with it: take the new one
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() >= deadline_s:
                raise DeployRefused(
                    f"Another change of {path.parent.name!r} is running ({_holder(path)}) and did not end "
                    f"within {timeout_s:g} s.",
                    code="LOCKED",
                    fix="Wait for it, or end that process; the lock goes with it.",
                ) from None
            time.sleep(_POLL_S)
        except BaseException:
            os.close(descriptor)
            raise


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Write who holds it, for those who wait; on a full disk it does without."""
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, holder, 0)
        os.ftruncate(descriptor, len(holder))


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"  # it has only just taken it
