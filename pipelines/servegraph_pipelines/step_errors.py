"""What a failed step said of itself, found in what it printed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from servegraph import errors
from servegraph.errors import Refusal, ServegraphError

_OWN_ERROR = re.compile(r"servegraph\.errors\.(\w+): \[([A-Z0-9_]+)\] (.*?)(?: Fix: (.*))?$")
_RAISED = re.compile(r"^\s*\w[\w.]*(Error|Exception|Interrupt)\b")


def own_error(lines: Sequence[str], where: str) -> ServegraphError | None:
    """Return the last error of ours in a log as the step raised it, None where there is none."""
    for line in reversed(lines):
        if match := _OWN_ERROR.search(line.rstrip()):
            kind, code, message, fix = match.groups()
            return _error_class(kind)(f"{where}: {message}", fix=fix or "", code=code)
    return None


def last_raised(lines: Sequence[str]) -> str:
    """Return the last line that names an exception, empty where none does."""
    return next((line.strip() for line in reversed(lines) if _RAISED.match(line)), "")


def _error_class(name: str) -> type[ServegraphError]:
    found = getattr(errors, name, Refusal)
    return found if isinstance(found, type) and issubclass(found, ServegraphError) else Refusal
