"""What a failed step said of itself, found in what it printed."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from servegraph import errors
from servegraph.errors import Refusal, ServegraphError, StorageError
from servegraph.extras import of_extra

_OWN_ERROR = re.compile(r"servegraph\.errors\.(\w+): \[([A-Z0-9_]+)\] (.*?)(?: Fix: (.*))?$")
_RAISED = re.compile(r"^\s*\w[\w.]*(Error|Exception|Interrupt)\b")


# What the system calls a full disk: Python, TensorFlow and HDF5 all quote it.
_DISK_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)


def known_error(lines: Sequence[str], where: str) -> ServegraphError | None:
    """Return the last error of ours in a log as the step raised it, else that of a full disk, else None."""
    for line in reversed(lines):
        if match := _OWN_ERROR.search(line.rstrip()):
            kind, code, message, fix = match.groups()
            return _error_class(kind)(f"{where}: {message}", fix=fix or "", code=code)
    for line in reversed(lines):
        if _RAISED.match(line) and any(words in line for words in _DISK_FULL):
            return disk_full(f"{where}: {line.strip()}")
    return None


def disk_full(what: str) -> StorageError:
    """Return the error of what had no room to write."""
    fix = "Free space on the file system that is written to, or give another one."
    return StorageError(what, code="DISK_FULL", fix=fix)


def own_error(error: BaseException) -> ServegraphError | None:
    """Return the error of ours that an exception is or stands for, None for any other."""
    if isinstance(error, ServegraphError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(f"Cannot write {error.filename or 'the output'}: {error.strerror}.")
    return of_extra(error) if isinstance(error, ImportError) else None


def killed(exit_code: int | None, where: str, log: Path) -> ServegraphError | None:
    """Return the error of a step that a signal ended, None where none did; a shell adds 128 to the signal's number."""
    number = -exit_code if exit_code is not None and exit_code < 0 else (exit_code or 0) - 128
    if number not in set(signal.Signals):
        return None
    name = signal.Signals(number).name
    fix = f"See its output in {log}."
    if number == signal.SIGKILL:
        what = f"{where} was killed ({name}), most likely because memory ran out."
        return Refusal(what, code="STEP_KILLED", fix=f"Give it more memory, or less to hold. {fix}")
    verb = "crashed" if number in _CRASHES else "was ended"
    return Refusal(f"{where} {verb} ({name}).", code="STEP_KILLED", fix=fix)


def last_raised(lines: Sequence[str]) -> str:
    """Return the last line that names an exception, empty where none does."""
    return next((line.strip() for line in reversed(lines) if _RAISED.match(line)), "")


def _error_class(name: str) -> type[ServegraphError]:
    found = getattr(errors, name, Refusal)
    return found if isinstance(found, type) and issubclass(found, ServegraphError) else Refusal
