"""What an inspection says against deploying a whole model: a fixed batch, and files that are no part of it."""

from __future__ import annotations

from collections.abc import Sequence

from servegraph.deploy_version.plan import ModelFacts
from servegraph.errors import DeployRefused
from servegraph.machines.sizes import format_size
from servegraph.savedmodel.layout import role_of
from servegraph.storage.directory import FileInfo

MAX_NAMED = 10  # stray files that a warning names
_OF_TRAINING = frozenset({"stray_checkpoint", "stray_summary"})


def check_batch(model: ModelFacts) -> None:
    """Refuse a model whose outermost dimension is fixed, for services that send it batches of any size.

    A routine or an image of one's own stands between the requests and the graph and may give it what it takes: then it
    is only a warning.

    Raises:
        DeployRefused: it is (code `FIXED_BATCH`).
    """
    if model.fixed_batch and not model.for_own_code:
        first, more = model.fixed_batch[0], len(model.fixed_batch) - 1
        raise DeployRefused(f"{first.message}{f' And {more:,} more.' if more else ''}", code=first.code, fix=first.fix)


def warnings_of(model: ModelFacts) -> list[str]:
    """Return what is said of a model that is deployed all the same."""
    warnings = [f"{item.code}: {item.message} Requests cannot be batched. {item.fix}" for item in model.fixed_batch]
    if said := model.for_own_code and [info for info in model.strays if role_of(info.path) in _OF_TRAINING]:
        what = f"of a training by their names, and deployed with what {_reader(model)} may read: {_named(said)}."
        warnings.append(f"STRAY_FILES: {what} Where it does not, remove them.")
    elif model.strays and not model.for_own_code:
        fix = "Files that a routine reads come with `servegraph package --artifacts DIR`."
        warnings.append(f"STRAY_FILES: no part of the model, and left behind: {_named(model.strays)}. {fix}")
    return warnings


def _reader(model: ModelFacts) -> str:
    return "the routine" if model.routine is not None else "the image"


def _named(files: Sequence[FileInfo]) -> str:
    names = [f"{info.path} ({format_size(info.size_bytes)})" for info in files[:MAX_NAMED]]
    more = f" and {len(files) - len(names):,} more" if len(files) > len(names) else ""
    return f"{', '.join(names)}{more} ({format_size(sum(info.size_bytes for info in files))} in all)"
