"""What a machine choice says, as a deploy wants it: the machine, what to fall back on, what a container asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from servegraph.errors import InputError, in_short
from servegraph.serve.state import ServingConfig


class Choice(NamedTuple):
    """The machine, those to try in turn where it is not to be had, and the resources of a container."""

    config: ServingConfig
    fallbacks: tuple[ServingConfig, ...] = ()
    resources: tuple[tuple[str, str], ...] = ()


def read_choice(document: Any, target: str, source: str = "The choice") -> Choice:
    """Return what the decision record of `choose` (as JSON values, from `source`) means for `target`.

    Raises:
        InputError: it is not one (code `BAD_CHOICE`), or was made for another platform (code `OTHER_PLATFORM`).
    """
    try:
        if not isinstance(document, Mapping):
            raise KeyError("platform")
        if document["platform"] != target:
            raise InputError(
                f"The machine was chosen for {document['platform']}, and the target is {target}.",
                code="OTHER_PLATFORM",
                fix=f"Choose with --platform {target}.",
            )
        asked = (document.get("resources") or {}).get("requests", {})
        return Choice(_config(document), fallbacks(document.get("fallbacks", [])), resources(asked))
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        if isinstance(exc, InputError):
            raise
        raise InputError(
            f"{source} is not the record of a machine choice: {in_short(exc)}.",
            code="BAD_CHOICE",
            fix="Make it with `servegraph choose MODEL --json`.",
        ) from exc


def fallbacks(rows: Iterable[Mapping[str, Any]]) -> tuple[ServingConfig, ...]:
    """Return the machines of a record's `fallbacks`."""
    return tuple(_config(row) for row in rows)


def resources(asked: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what a container asks for, in a fixed order."""
    return tuple(sorted((str(name), str(amount)) for name, amount in asked.items()))


def _config(row: Mapping[str, Any]) -> ServingConfig:
    return ServingConfig(
        str(row["machine_type"]), row.get("accelerator_type") or None, int(row.get("accelerator_count") or 0)
    )
