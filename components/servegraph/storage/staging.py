"""Where a model is made before it is anywhere to be seen: a hidden directory beside the output, for one rename.

Of deploys to this machine, whose directories other processes have to recognize, see `deploy_version.staging`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servegraph.errors import StorageError


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Make what the system refuses of the block's writing a `StorageError` (code `CANNOT_WRITE`)."""
    try:
        yield
    except StorageError:
        raise
    except OSError as exc:
        raise StorageError(
            f"The model cannot be written to {out}: {exc}.",
            code="CANNOT_WRITE",
            fix="Give a directory that can be written and has space left.",
        ) from exc


@contextmanager
def work_directory(out: Path) -> Iterator[Path]:
    """Give a new directory beside `out`, below directories that are made where there are none; nothing of it stays.

    Raises:
        StorageError: it cannot be made (code `CANNOT_WRITE`).
    """
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        # By its name: its whole path, which newer Pythons return, may have what TensorFlow takes for a wildcard.
        made = out.parent / Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent)).name
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
