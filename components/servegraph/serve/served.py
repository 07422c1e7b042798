"""The record that requests read: the versions of one model as the server has them, and which one answers."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from servegraph.errors import RequestError
from servegraph.savedmodel.graph import Signature
from servegraph.serve.lane import Outcome
from servegraph.serve.methods import Method
from servegraph.serve.versions import WantedModel, WantedVersion

State = Literal["LOADING", "AVAILABLE", "END"]


class LoadedModel(Protocol):
    """What answers for a version: a SavedModel, or a predictor, which is a routine."""

    @property
    def is_routine(self) -> bool:
        """Whether it is sent what the Vertex SDK's server sends."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """What a client may send, by name."""

    @property
    def load(self) -> tuple[int, int]:
        """How many requests wait, and how many run."""

    def ask(self, method: Method, body: bytes, done: Callable[[Outcome], None]) -> None:
        """Call `done` with the answer or the error, in the thread of the event loop; refuse at once by raising."""


@dataclass(frozen=True)
class LoadedVersion:
    """One version as the server has it: `model` while AVAILABLE, `error` after a failed load (END)."""

    wanted: WantedVersion
    state: State
    model: LoadedModel | None = None
    error: str = ""


@dataclass(frozen=True)
class ServedModel:
    """The versions of a model, their shares of unversioned requests, and their labels. Never changed."""

    name: str
    versions: Mapping[int, LoadedVersion] = field(default_factory=dict)
    traffic: Mapping[int, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)

    @functools.cached_property
    def answering(self) -> Mapping[int, LoadedVersion]:
        """The loaded versions among those that have traffic."""
        return {
            number: self.versions[number]
            for number, share in self.traffic.items()
            if share and number in self.versions and self.versions[number].state == "AVAILABLE"
        }

    def number(self, version: int | None = None, label: str | None = None) -> int:
        """Return the version that `version`, `label`, or else a draw from the traffic shares names.

        Raises:
            RequestError: there is no such version or label (code `NOT_FOUND`).
        """
        if label is not None:
            if label not in self.labels:
                raise RequestError(
                    f"Unrecognized servable version label: {label}.",
                    code="NOT_FOUND",
                    fix=f"Labels of {self.name}: {', '.join(sorted(self.labels)) or 'none'}.",
                )
            return self.labels[label]
        if version is not None:
            if version not in self.versions:
                raise RequestError(
                    f"Servable not found for request: Specific({self.name}, {version}).",
                    code="NOT_FOUND",
                    fix=f"Versions here: {', '.join(map(str, sorted(self.versions))) or 'none'}.",
                )
            return version
        # With nothing loaded the first that has traffic is named, so that the answer can say what became of
        # it.
        numbers = list(self.answering) or [number for number, share in self.traffic.items() if share][:1]
        if not numbers:
            raise RequestError(
                f"Servable not found for request: Latest({self.name}).",
                code="NOT_FOUND",
                fix=f"None is loaded; GET /v1/models/{self.name} says what became of each.",
            )
        if len(numbers) == 1:
            return numbers[0]
        return random.choices(numbers, weights=[self.traffic[number] for number in numbers])[0]  # noqa: S311

    def find(self, version: int | None = None, label: str | None = None) -> LoadedModel:
        """Return the loaded model of the version that `number` chooses.

        Raises:
            RequestError: there is none (`NOT_FOUND`), or it is still loading (`UNAVAILABLE`).
        """
        number = self.number(version, label)
        found = self.versions.get(number)
        if found is not None and found.model is not None:
            return found.model
        if found is not None and found.state == "LOADING":
            raise RequestError(
                f"{self.name} version {number} is being loaded.", code="UNAVAILABLE", fix="Try again shortly."
            )
        why = f" It could not be loaded: {found.error}" if found is not None and found.error else ""
        raise RequestError(
            f"Servable not found for request: Specific({self.name}, {number}).{why}",
            code="NOT_FOUND",
            fix=f"GET /v1/models/{self.name} lists the versions that are loaded.",
        )


def settled(versions: Mapping[int, LoadedVersion], wanted: WantedModel, before: ServedModel) -> ServedModel:
    """Return the record for `versions`; where none of them can take the traffic, those that do now stay."""
    served = ServedModel(before.name, dict(versions), wanted.traffic, wanted.labels)
    stay = before.answering
    if served.answering or not wanted.traffic or not stay:
        return served
    return ServedModel(before.name, {**versions, **stay}, before.traffic, wanted.labels)
