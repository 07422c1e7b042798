"""Where a version can be deployed: the same few functions for every target, one module and one row each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from servegraph.deploy_version.plan import DeployRequest, ModelFacts, ModelVersions, Outcome, Plan, TargetName
from servegraph.errors import InputError

OnStep = Callable[[str], None]
"""Called with a few words after each thing that apply did, in order."""


def say_nothing(done: str) -> None:
    """The `OnStep` of callers that show no progress."""


class Target(Protocol):
    """A place for versions. Versions are strings here: each service has its own idea of them."""

    def plan(self, request: DeployRequest, model: ModelFacts) -> Plan:
        """Return what `apply` would do now. Changes nothing.

        Raises:
            InputError: the request cannot be met by this target.
            StorageError: the target's state cannot be read.
        """

    def apply(self, plan: Plan, on_step: OnStep = say_nothing) -> Outcome:
        """Do what the plan says, or what it has become since; after a failure the old version is still live.

        Raises:
            DeployRefused: the signature changed, the probe failed, or another change is running.
            StorageError: files cannot be read or written.
        """

    def versions(self, name: str) -> ModelVersions:
        """Return the versions of a model. Raises `InputError` (code `NOT_DEPLOYED`) where there are none."""

    def rollback(self, name: str, to: str | None = None) -> Outcome:
        """Give all traffic to version `to`, or to the one that had it before the live one.

        Doing it again changes nothing: a version that was rolled back is only returned to by naming it.

        Raises:
            InputError: there is no such model or version (code `NOT_DEPLOYED`).
            DeployRefused: there is none to roll back to (code `NO_PREVIOUS_VERSION`).
        """

    def undeploy(self, name: str, version: str | None = None) -> Outcome:
        """Remove a version without traffic, or (None) the model with all its versions. Gone already is fine.

        Raises:
            DeployRefused: the version has traffic (code `HAS_TRAFFIC`).
        """


def _local(location: str | None) -> Target:
    from servegraph.deploy_version.targets.local import LocalTarget

    if not location or "://" in location:
        raise InputError(
            f"The local target needs the directory to deploy to, not {location!r}.",
            fix="Give a local path: --root ROOT, or the component's `location`.",
        )
    return LocalTarget(Path(location))


TARGETS: dict[TargetName, Callable[[str | None], Target]] = {"local": _local}


def open_target(name: str, location: str | None) -> Target:
    """Return the target `name` at `location` (for `local`, the root directory). Nothing is read or made.

    Raises:
        InputError: there is no such target (code `UNKNOWN_TARGET`), or it needs a location.
    """
    for known, make in TARGETS.items():
        if known == name:
            return make(location)
    raise InputError(f"There is no target {name!r}.", code="UNKNOWN_TARGET", fix=f"Targets: {', '.join(TARGETS)}.")
