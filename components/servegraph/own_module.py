"""The command that runs a module of servegraph in a process of its own."""

from __future__ import annotations

import sys


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `module` with this Python.

    `-m` alone would look for every import in the working directory first, where a user's `http.py` or `keras.py` may
    lie. Python 3.10 has no option against it.
    """
    return [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", module, *arguments]
