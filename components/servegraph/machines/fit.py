"""The size a model may have to be served by a family of machines, or by one machine."""

from __future__ import annotations

from servegraph.errors import InputError
from servegraph.machines.catalog import load

_MEMORY_RULE = 1.2  # TensorFlow Serving's own: what a model takes in memory, by what it takes on disk


def budget_bytes_for(name: str) -> int:
    """Return the largest model for a family such as `mls1` or `n1`, or a machine type such as `n1-standard-2`.

    Of the platforms that have it, the strictest limit counts; a machine must also hold the model in its memory.

    Raises:
        InputError: the catalogue has no such family or machine (code `UNKNOWN_MACHINE`).
    """
    found = []
    for platform in load().platforms.values():
        if name in platform.families:
            found.append(platform.families[name].max_model_bytes)
        for machine in platform.machine_types:
            if machine.name == name:
                held = int(machine.memory_bytes / _MEMORY_RULE)
                found.append(min(platform.families[machine.family].max_model_bytes, held))
    if not found:
        families = sorted({family for platform in load().platforms.values() for family in platform.families})
        raise InputError(
            f"The catalogue has no machine and no family {name!r}.",
            code="UNKNOWN_MACHINE",
            fix=f"Families are {', '.join(families)}; a machine type is written like n1-standard-2.",
        )
    return min(found)
