"""Training checkpoints: one `.keras` file per epoch, architecture, weights and optimizer state in it.

The directory alone is enough to go on training or to export a serving graph later. A file appears only when it is
complete, so a task killed at any moment leaves whole checkpoints behind.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from servegraph.errors import StorageError

if TYPE_CHECKING:
    import keras

KEEP = 2
PARTIAL = "partial-"  # what the names of files begin with that are not complete yet
_NAME = re.compile(r"epoch-(\d{5})\.keras")


def save(model: keras.Model, directory: Path, epoch: int) -> Path:
    """Write the checkpoint of the finished `epoch` (counted from 1), then remove all but the newest `KEEP`."""
    final = directory / f"epoch-{epoch:05d}.keras"
    save_model(model, final)
    for old in sorted(_epochs(directory).items())[:-KEEP]:
        old[1].unlink(missing_ok=True)
    return final


def save_model(model: keras.Model, final: Path) -> None:
    """Write `model` to the `.keras` file `final`, which appears only when it is complete.

    Raises:
        StorageError: the file cannot be written (code `CANNOT_WRITE`); nothing is left behind.
    """
    partial = final.with_name(f"{PARTIAL}{final.name}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        model.save(partial)
        partial.replace(final)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise StorageError(
            f"The model cannot be written to {final}: {exc}.",
            code="CANNOT_WRITE",
            fix="Give a directory that can be written and has space left.",
        ) from exc


def newest(directory: Path) -> tuple[int, Path] | None:
    """Return (epoch, file) of the newest whole checkpoint, or None; damaged files are passed over."""
    for epoch, path in sorted(_epochs(directory).items(), reverse=True):
        if zipfile.is_zipfile(path):
            return epoch, path
    return None


def _epochs(directory: Path) -> dict[int, Path]:
    if not directory.is_dir():
        return {}
    found = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return {int(match[1]): path for match, path in found if match}
