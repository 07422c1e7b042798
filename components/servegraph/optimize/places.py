"""Where model and samples are read and the smaller model goes, checked without TensorFlow: before anything runs."""

from __future__ import annotations

import os
from pathlib import Path

from servegraph import storage
from servegraph.errors import InputError
from servegraph.savedmodel.layout import require_saved_model
from servegraph.storage.data_files import require_match
from servegraph.storage.local import answering
from servegraph.storage.local_paths import require_loadable_path


def require_places(model: Path, out: Path, samples: str | None = None) -> None:
    """Check that there is a SavedModel at `model`, nothing at `out`, which is not inside of it, and `samples` if given.

    Raises:
        InputError: `out` exists already (`OUTPUT_EXISTS`) or is in `model` (`OUTPUT_IN_MODEL`), or one of them is a
            path that TensorFlow takes for a pattern (`UNLOADABLE_PATH`).
        ModelError: `model` is no SavedModel.
        StorageError: one of them cannot be reached, or there are no samples (`NOT_FOUND`).
    """
    require_loadable_path(model, "MODEL")
    require_loadable_path(out, "OUT")
    with answering("write", out):
        is_new_or_empty = not os.path.lexists(out) or (out.is_dir() and not out.is_symlink() and not any(out.iterdir()))
    if not is_new_or_empty:
        raise InputError(f"{out} exists already.", code="OUTPUT_EXISTS", fix="Give a new directory.")
    require_saved_model(storage.open_dir(model))
    with answering("write", out):
        is_inside = out.resolve().is_relative_to(model.resolve())
    if is_inside:
        raise InputError(
            f"{out} is inside of the model {model}, which stays as it is.",
            code="OUTPUT_IN_MODEL",
            fix="Give a directory beside it.",
        )
    require_match(samples)
