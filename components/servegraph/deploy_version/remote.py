"""What every target that is a service speaks in: the goal, what is there, and the service's few functions.

A deploy to a service is a loop: look at what is there, work out the steps that are still missing, do the first, look
again (`converge`). What a step changed is always seen in the service itself, never remembered here. That is why it
does not matter where the last run was killed, or whether an answer got lost after its request took effect.

What somebody else made under the name is seen as well: a foreign version is shown and kept. It is never removed or
labelled, and what is taken of its traffic is said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Literal, Protocol

from servegraph.deploy_version.plan import DeployRequest, ModelFacts, Step, TargetName
from servegraph.savedmodel.golden_file import GoldenRequest
from servegraph.serve.state import ServingConfig

STABLE = "stable"  # the label of the version that users should get, as TF Serving has it
State = Literal["ready", "starting", "failed", "stored"]


@dataclass(frozen=True)
class SeenVersion:
    """One version as the service has it.

    `identity` is empty where somebody else made it. `state` is `stored` where nothing serves it; `share` is its
    percentage of the traffic. `handle` is what the service calls the running thing, where it has a name of its own.
    """

    version: str
    resource: str
    identity: str = ""
    digest: str = ""
    artifact_uri: str = ""
    created: str = ""
    size_bytes: int = 0
    config: ServingConfig = field(default_factory=ServingConfig)
    state: State = "stored"
    share: int = 0
    handle: str = ""
    labels: tuple[str, ...] = ()
    reason: str = ""  # why it failed

    @property
    def is_foreign(self) -> bool:
        """Whether somebody else made it."""
        return not self.identity


@dataclass(frozen=True)
class Staged:
    """Which files of the model are at the staging place: their sizes by path."""

    uri: str
    files: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether the file that comes last is there."""
        return any(path.rsplit("/", 1)[-1].startswith("saved_model.pb") for path in self.files)


@dataclass(frozen=True)
class Seen:
    """All that a service has of one name. `busy` are its operations in flight; `own` is the service's own."""

    name: str
    resource: str = ""
    versions: tuple[SeenVersion, ...] = ()
    previous: str | None = None
    rolled_back_from: str | None = None
    busy: tuple[str, ...] = ()
    staged: Staged = Staged("")
    own: Mapping[str, Any] = field(default_factory=dict)

    def of(self, identity: str) -> SeenVersion | None:
        """Return the version with `identity`, or None; of several one that runs, with traffic if there is, the newest.

        A copy of a version in a registry is such another one: it cannot run beside that which does.
        """
        found = [version for version in self.versions if identity and version.identity == identity]
        return max(found, key=lambda version: (version.state == "ready", version.share > 0), default=None)

    def version(self, name: str | None) -> SeenVersion | None:
        """Return the version of that name, or None."""
        return next((version for version in self.versions if version.version == name), None)

    @property
    def foreign(self) -> tuple[SeenVersion, ...]:
        """The versions that somebody else made."""
        return tuple(version for version in self.versions if version.is_foreign)

    @property
    def serving(self) -> tuple[SeenVersion, ...]:
        """The versions that run, with traffic or without."""
        return tuple(version for version in self.versions if version.state == "ready")

    @property
    def shares(self) -> dict[str, int]:
        """The traffic by version, of those that have any."""
        return {version.version: version.share for version in self.versions if version.share}

    @property
    def way_back(self) -> str | None:
        """The previous version where it still runs; else a rollback has nothing to give the traffic to."""
        return next((version.version for version in self.serving if version.version == self.previous), None)

    @property
    def live(self) -> SeenVersion | None:
        """The version with the largest share of the traffic, or None."""
        return max((v for v in self.versions if v.share), key=lambda v: v.share, default=None)


@dataclass(frozen=True)
class Shift:
    """Traffic by version after a step, and what is remembered of the way back."""

    shares: Mapping[str, int]
    previous: str | None
    rolled_back_from: str | None = None


@dataclass(frozen=True)
class Goal:
    """What is to be: the request's model, under the machine in use now, which may be one to fall back on."""

    request: DeployRequest
    model: ModelFacts
    config: ServingConfig
    artifact_uri: str
    probed: bool = False

    @property
    def identity(self) -> str:
        """What makes the version this one and no other: its files and how they were asked to be served.

        The machine that was asked for counts and not the one fallen back on, or a second run would try again.
        """
        asked = [self.model.digest, asdict(self.request.config), self.request.service.identity()]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:40]

    @property
    def needs_probe(self) -> bool:
        """Whether golden requests still have to be answered before it takes traffic."""
        return bool(self.model.golden_requests) and not self.probed


@dataclass(frozen=True)
class Answer:
    """What a golden request got: outputs by name, and which version answered, where the service says so."""

    outputs: Mapping[str, Any]
    version: str | None = None


class Service(Protocol):
    """What a target that is a service has of its own. Steps are values; `perform` does them."""

    target: TargetName
    default_machine: str | None  # what a version runs on where none is named
    splits_traffic: bool  # else a version has all or none
    can_be_empty: bool  # versions may run while none has traffic

    def see(self, name: str, goal: Goal | None) -> Seen:
        """Return what the service has of `name`; without what is staged, which is not its own."""

    def check(self, request: DeployRequest, model: ModelFacts, today: date) -> tuple[str, ...]:
        """Return warnings. Raise `DeployRefused` where the service would refuse the request; nothing is sent."""

    def validate(self, step: Step) -> None:
        """Hold a step's request to the service's own schema. Raises `InputError` or `DeployRefused`."""

    def layout(self, artifact_uri: str) -> str:
        """Return where the files go for the service to find them below `artifact_uri`."""

    def next_version(self, seen: Seen) -> tuple[str, str]:
        """Return the name and the resource that the next version will have."""

    def prepare(self, goal: Goal, seen: Seen) -> tuple[Step, ...]:
        """Return the steps until the version runs without traffic and has answered the golden requests.

        Raises:
            DeployRefused: it could run in the place of a foreign version only (code `FOREIGN_DEPLOYMENTS`).
        """

    def foresee(self, seen: Seen, steps: tuple[Step, ...]) -> Seen:
        """Return what will be there once `steps` are done, as far as the requests after them depend on it."""

    def shift(self, seen: Seen, shift: Shift) -> tuple[Step, ...]:
        """Return the steps that share the traffic out."""

    def label(self, seen: Seen, version: SeenVersion, labels: tuple[str, ...]) -> tuple[Step, ...]:
        """Return the steps that let `labels` point to a version, taking them from others."""

    def retire(self, seen: Seen, version: SeenVersion) -> tuple[Step, ...]:
        """Return the steps that stop a version which has no traffic, and free what it costs."""

    def withdraw(self, goal: Goal, seen: Seen) -> tuple[Step, ...]:
        """Return the steps that leave nothing of a version that must not serve and has no traffic."""

    def dismantle(self, seen: Seen) -> tuple[Step, ...]:
        """Return the steps that remove the name with all its versions; what is somebody else's stays.

        Asked only where no foreign version runs. The last step removes what names the versions: as long as it is not
        done, a removal that was cut off is found unfinished.
        """

    def perform(self, step: Step) -> None:
        """Do a step and wait for its end. Raises what `faults` has."""

    def ask(self, goal: Goal, seen: Seen, request: GoldenRequest) -> Answer | None:
        """Ask the version on probation; once it has traffic, whoever answers. None where it cannot be asked so."""

    def cancel(self, *operations: str) -> None:
        """Ask the service to give up these operations, or else the one that this process waits for, if it does."""
