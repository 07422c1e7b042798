"""Where a version can be deployed: the same few functions for every target, one module and one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from servegraph.deploy_version.plan import DeployRequest, ModelFacts, ModelVersions, Outcome, Plan, TargetName
from servegraph.errors import InputError
from servegraph.storage.local_paths import require_loadable_path, require_local

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
            DeployRefused: there is none to roll back to (code `NO_PREVIOUS_VERSION`), or its files are gone on this
                machine (`FILES_LOST`).
        """

    def undeploy(self, name: str, version: str | None = None) -> Outcome:
        """Remove a version without traffic, or (None) the model with all its versions. Gone already is fine.

        Raises:
            DeployRefused: the version has traffic (code `HAS_TRAFFIC`), or what would be stopped is somebody else's
                (code `FOREIGN_DEPLOYMENTS`).
        """


@dataclass(frozen=True)
class Place:
    """Where a target is: of these, each target needs its own few.

    `root` is for `local`; `project`, `region` and `staging` (gs://bucket/prefix) for Google's services; `namespace`,
    `context` and `staging` for `kserve`. `api_url` is an emulator's or a private endpoint's.
    """

    root: str | None = None
    project: str | None = None
    region: str | None = None
    staging: str | None = None
    namespace: str | None = None
    context: str | None = None
    api_url: str | None = None


def _local(place: Place) -> Target:
    from servegraph.deploy_version.targets.local import LocalTarget

    if not place.root:
        raise InputError(
            "The local target needs the directory to deploy to.",
            fix="Give a local path: --root ROOT, or the component's `location`.",
        )
    root = require_local(place.root).absolute()
    require_loadable_path(root, "--root, or component input `location`,")
    return LocalTarget(root)


def _vertex(place: Place) -> Target:
    from servegraph.deploy_version.cloud_logging import CloudLogging
    from servegraph.deploy_version.site import Site, Staging
    from servegraph.deploy_version.targets.remote_target import RemoteTarget
    from servegraph.deploy_version.targets.vertex import Vertex
    from servegraph.deploy_version.targets.vertex_api import VertexApi

    project, region = _needed(place, "vertex", "project"), _needed(place, "vertex", "region")
    service = Vertex(project, region, VertexApi(region, place.api_url), CloudLogging(project, place.api_url))
    return RemoteTarget(Site(service, Staging(_staging(place, "vertex"))))


def _ai_platform(place: Place) -> Target:
    from servegraph.deploy_version.site import Site, Staging
    from servegraph.deploy_version.targets.ai_platform import AiPlatform
    from servegraph.deploy_version.targets.ai_platform_api import AiPlatformApi
    from servegraph.deploy_version.targets.remote_target import RemoteTarget

    region = None if place.region in (None, "", "global") else place.region
    api = AiPlatformApi(region, place.api_url)
    service = AiPlatform(_needed(place, "ai-platform", "project"), region, api, today_is_fine=bool(place.api_url))
    return RemoteTarget(Site(service, Staging(_staging(place, "ai-platform"))))


def _kserve(place: Place) -> Target:
    from servegraph.deploy_version.site import Site, Staging
    from servegraph.deploy_version.targets.kserve import Kserve
    from servegraph.deploy_version.targets.kserve_api import KserveApi
    from servegraph.deploy_version.targets.remote_target import RemoteTarget

    api = KserveApi(_needed(place, "kserve", "namespace"), place.context, place.api_url)
    return RemoteTarget(Site(Kserve(api), Staging(_staging(place, "kserve"))))


# One row a target.
TARGETS: dict[TargetName, Callable[[Place], Target]] = {
    "local": _local,
    "vertex": _vertex,
    "ai-platform": _ai_platform,
    "kserve": _kserve,
}


def open_target(name: str, place: Place) -> Target:
    """Return the target `name` at `place`. Nothing is read or made.

    Raises:
        InputError: there is no such target (code `UNKNOWN_TARGET`), or it needs more to be found (`NO_PLACE`).
    """
    return TARGETS[known_target(name)](place)


def known_target(name: str) -> TargetName:
    """Return `name` if it is a target. Raises `InputError` (code `UNKNOWN_TARGET`)."""
    for known in TARGETS:
        if known == name:
            return known
    raise InputError(f"There is no target {name!r}.", code="UNKNOWN_TARGET", fix=f"Targets: {', '.join(TARGETS)}.")


def _needed(place: Place, target: TargetName, what: str) -> str:
    value = getattr(place, what)
    if not value:
        raise InputError(
            f"The target {target} needs a {what}.", code="NO_PLACE", fix=f"Give --{what}, or the component's `{what}`."
        )
    return str(value)


def _staging(place: Place, target: TargetName) -> str:
    uri = _needed(place, target, "staging")
    if not uri.startswith("gs://") or not uri.removeprefix("gs://").strip("/"):
        raise InputError(
            f"{uri!r} is no place for model files.", code="NO_PLACE", fix="Give --staging gs://bucket/prefix."
        )
    return uri
