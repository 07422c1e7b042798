"""What an inspection says against deploying a whole model: a fixed batch, and files that are no part of it."""

from __future__ import annotations

from servegraph.deploy_version.plan import ModelFacts
from servegraph.errors import DeployRefused
from servegraph.machines.sizes import format_size

MAX_NAMED = 10  # stray files that a warning names


def check_batch(model: ModelFacts) -> None:
    """Refuse a model whose outermost dimension is fixed, for services that send it batches of any size.

    A routine stands between the requests and the graph and may give it what it takes: then it is only a warning.

    Raises:
        DeployRefused: it is (code `FIXED_BATCH`).
    """
    if model.fixed_batch and model.routine is None:
        first, more = model.fixed_batch[0], len(model.fixed_batch) - 1
        raise DeployRefused(f"{first.message}{f' And {more:,} more.' if more else ''}", code=first.code, fix=first.fix)


def warnings_of(model: ModelFacts) -> list[str]:
    """Return what is said of a model that is deployed all the same."""
    warnings = [f"{item.code}: {item.message} Requests cannot be batched. {item.fix}" for item in model.fixed_batch]
    if model.strays:
        size_bytes = sum(info.size_bytes for info in model.strays)
        names = [f"{info.path} ({format_size(info.size_bytes)})" for info in model.strays[:MAX_NAMED]]
        more = len(model.strays) - len(names)
        warnings.append(
            f"STRAY_FILES: no part of the model, and deployed with it ({format_size(size_bytes)}): {', '.join(names)}"
            f"{f' and {more:,} more' if more else ''}. `servegraph optimize` leaves them out."
        )
    return warnings
