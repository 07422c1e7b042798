"""What a failed step said of itself, found in what it printed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence

from servegraph import errors
from servegraph.errors import Refusal, ServegraphError, StorageError

_OWN_ERROR = re.compile(r"servegraph\.errors\.(\w+): \[([A-Z0-9_]+)\] (.*?)(?: Fix: (.*))?$")
_RAISED = re.compile(r"^\s*\w[\w.]*(Error|Exception|Interrupt)\b")


# What the system calls a full disk: Python, TensorFlow and HDF5 all quote it.
_DISK_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


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
    """Return the error of a step that had no room to write."""
    fix = "Free space on the file system that the step writes to, or give it another one."
    return StorageError(what, code="DISK_FULL", fix=fix)


def last_raised(lines: Sequence[str]) -> str:
    """Return the last line that names an exception, empty where none does."""
    return next((line.strip() for line in reversed(lines) if _RAISED.match(line)), "")


def _error_class(name: str) -> type[ServegraphError]:
    found = getattr(errors, name, Refusal)
    return found if isinstance(found, type) and issubclass(found, ServegraphError) else Refusal
