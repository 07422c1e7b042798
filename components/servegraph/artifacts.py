"""What a step learned about its artifact, as frozen dataclasses stored in KFP artifact metadata.

Metadata is JSON on the way: KFP turns integers into floats and tuples into lists. `recall` undoes that from the
dataclass's own annotations, so a step never handles loose string keys. Field types are limited to
`str`, `int`, `float`, `bool`, `list[str]` and `dict[str, float]`.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kfp import dsl

from servegraph.errors import InputError

Record = TypeVar("Record")


@dataclass(frozen=True)
class TrainedModel:
    """A model as `train` leaves it: optimizer and all."""

    file: str  # below the artifact's path: the .keras file, of an Estimator its record
    size_bytes: int
    trainer: str
    metrics: dict[str, float] = field(default_factory=dict)
    digest: str = ""  # of all files, the schema too
    notes: list[str] = field(default_factory=list)  # on what was decided about its data, and how few they are


@dataclass(frozen=True)
class ServingModel:
    """A serving SavedModel, from `export_serving_graph` or `optimize`."""

    size_bytes: int
    digest: str  # of all files, see `servegraph.savedmodel.layout.content_digest`
    step: str  # which component wrote it


@dataclass(frozen=True)
class HeldOut:
    """Records that a model was not trained on, from `train`."""

    label: str  # the key of the right answer
    digest: str = ""  # of the records


def record(artifact: dsl.Artifact, facts: object) -> None:
    """Store the dataclass instance `facts` in the metadata of `artifact`, under its class name."""
    artifact.metadata[type(facts).__name__] = dataclasses.asdict(facts)  # type: ignore[call-overload]


def recall(artifact: dsl.Artifact, kind: type[Record]) -> Record | None:
    """Return the facts of class `kind` stored with `artifact`, or None where it has none.

    Raises:
        InputError: facts are there but do not have the fields of `kind` (code `BAD_ARTIFACT_METADATA`).
    """
    stored = artifact.metadata.get(kind.__name__)
    if stored is None:
        return None
    hints = typing.get_type_hints(kind)
    try:
        return kind(**{name: _restore(value, hints[name]) for name, value in stored.items()})
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(
            f"The artifact {artifact.uri!r} carries {kind.__name__} metadata that cannot be read: {stored!r}.",
            code="BAD_ARTIFACT_METADATA",
            fix="Make the artifact with the same version of servegraph as the step that reads it.",
        ) from exc


def _restore(value: Any, hint: Any) -> Any:
    if hint is int:
        return int(value)
    if hint is float:
        return float(value)
    return value
