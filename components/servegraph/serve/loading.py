"""What answers for a version directory: the SavedModel in it, or the routine around it where code is trusted."""

from __future__ import annotations

from pathlib import Path

from servegraph.errors import Refusal
from servegraph.routine.manifest import read_routine
from servegraph.serve.model import ModelOptions, load_model
from servegraph.serve.served import LoadedModel
from servegraph.storage import open_dir


def load_version(directory: Path, options: ModelOptions, *, trusts_code: bool) -> LoadedModel:
    """Load what is in `directory`.

    Raises:
        ModelError: it cannot be loaded.
        Refusal: it has a routine, whose code nobody said is trusted (code `CODE_NOT_TRUSTED`).
    """
    routine = read_routine(open_dir(directory))
    if routine is None:
        return load_model(directory, options)
    if not trusts_code:
        raise Refusal(
            f"{str(directory)!r} brings Python code of its own, the routine {routine.predictor}.",
            code="CODE_NOT_TRUSTED",
            fix="Look at it; start the server with --trust-code if it may run.",
        )
    from servegraph.serve.routine import host_routine

    return host_routine(directory, routine, options.lane)
