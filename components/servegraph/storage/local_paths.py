"""What a path on this machine may be, asked before anything is made there."""

from __future__ import annotations

import re
from pathlib import Path

from servegraph.errors import InputError
from servegraph.storage.directory import local_path

# With one slash too: pathlib makes `gs:/bucket` of `gs://bucket`. A drive of Windows has one letter.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_WILDCARDS = frozenset("*?[\\")  # of TensorFlow, which looks for the files of variables with a pattern


def require_local(text: str | Path) -> Path:
    """Return the path on this machine that `text` names: a path, or `file:///path`.

    Raises:
        InputError: it is an address (code `NOT_LOCAL`); as a path it would be a directory `gs:` below the current one.
    """
    found = str(text)
    if found.lower().startswith("file://"):
        path = local_path("file" + found[4:])
        assert path is not None
        return path
    if _ADDRESS.match(found):
        address = found if found.lower().startswith("file:") else re.sub(r":/+", "://", found, count=1)
        raise InputError(
            f"{address!r} is an address; a path on this machine is needed here.",
            code="NOT_LOCAL",
            fix="Give a local path, and copy from there or to there with `gcloud storage cp -r`.",
        )
    return Path(text)


def require_loadable_path(path: Path, what: str) -> None:
    """Raise `InputError` (code `UNLOADABLE_PATH`) where TensorFlow could load no model at `path` or below it.

    `what` is how the path is given: an option, or an argument. A relative path is taken as it is.
    """
    if found := sorted(_WILDCARDS & set(str(path))):
        raise InputError(
            f"No model at {str(path)!r} can be loaded: TensorFlow takes {found[0]!r} in a path for a wildcard.",
            code="UNLOADABLE_PATH",
            fix=f"Give another {what} whose path has none of * ? [ \\.",
        )
