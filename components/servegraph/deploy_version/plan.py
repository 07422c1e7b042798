"""What every target speaks in: a request, the plan for it, and what came of it. Values only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_type_hints

from servegraph.deploy_version.traffic import check_steps
from servegraph.errors import DeployRefused, InputError
from servegraph.explanations.rules import METHODS
from servegraph.inspect_graph.findings import Finding
from servegraph.routine.manifest import Routine
from servegraph.serve.signatures import Signatures
from servegraph.serve.state import ServingConfig
from servegraph.storage.directory import FileInfo

TargetName = Literal["local", "vertex", "ai-platform", "kserve"]
OutcomeName = Literal["created", "updated", "unchanged", "adopted", "rolled_back", "removed"]

# The live version and the one to roll back to. More cost disk, and memory in a server that has all of them
# loaded.
DEFAULT_KEEP_VERSIONS = 2


@dataclass(frozen=True)
class Tolerance:
    """How far a number of an answer may be from the recorded one: `abs` or `rel`, whichever allows more.

    The defaults let float32 results differ by what another instruction set or batch size changes, and no
    more.
    """

    abs: float = 1e-5
    rel: float = 1e-4

    def __post_init__(self) -> None:
        """Check both: an infinite one would let any answer pass. Raises `InputError` (code `BAD_TOLERANCE`)."""
        for value in (self.abs, self.rel):
            if not 0 <= value < math.inf:
                raise InputError(
                    f"The tolerance {value:g} is none.",
                    code="BAD_TOLERANCE",
                    fix="Give --tolerance ABS REL, two finite numbers from 0.",
                )


@dataclass(frozen=True)
class ServiceOptions:
    """How a service is to run a version, beyond its machine. What a target has no use for, it refuses.

    `image` None takes the target's default. `labels` are put on what is made and are no part of the identity.
    """

    min_replicas: int = 1
    max_replicas: int | None = None
    image: str | None = None
    runtime_version: str | None = None  # ai-platform, kserve
    python_version: str | None = None  # ai-platform
    service_account: str | None = None
    encryption_key: str | None = None  # projects/P/locations/L/keyRings/R/cryptoKeys/K
    network: str | None = None  # projects/NUMBER/global/networks/NAME
    reservation: str | None = None  # projects/P/zones/Z/reservations/NAME
    spot: bool = False
    explain: str | None = None  # a method: what explanations need is made from the signature
    explain_output: str | None = None  # of several numeric outputs the one to explain
    explanation: str | None = None  # or one's own, as JSON: an ExplanationSpec, or an ExplanationConfig of ai-platform
    resources: tuple[tuple[str, str], ...] = ()  # kserve: requests and limits of the container
    labels: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Check the counts and the explanation.

        Raises:
            InputError: there are fewer replicas than none, or the most are fewer than the least (code `BAD_REPLICAS`),
                or the explanation is no JSON object (code `BAD_EXPLANATION`).
        """
        if self.explain not in (None, *METHODS) or (self.explain and self.explanation):
            raise InputError(
                f"{self.explain!r} is no method, or an explanation of one's own is given beside it.",
                code="BAD_EXPLANATION",
                fix=f"Give one of {', '.join(METHODS)}, or the explanation alone.",
            )
        if self.explanation and not _is_object(self.explanation):
            raise InputError(
                "The explanation is not a JSON object.",
                code="BAD_EXPLANATION",
                fix="Give an ExplanationSpec, or for ai-platform an ExplanationConfig, as the service has it in JSON.",
            )
        if self.min_replicas < 0 or (self.max_replicas is not None and self.max_replicas < max(1, self.min_replicas)):
            most = "" if self.max_replicas is None else f" and at most {self.max_replicas}"
            raise InputError(
                f"There cannot be at least {self.min_replicas}{most} replicas.",
                code="BAD_REPLICAS",
                fix="Give --min-replicas and, not below it, --max-replicas.",
            )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ServiceOptions:
        """Return the options of a JSON object with these names; `resources` and `labels` are objects in it.

        Raises:
            InputError: a name is not known, or a value has another type (code `BAD_SERVICE_OPTION`).
        """
        types = get_type_hints(cls)
        given: dict[str, Any] = {}
        for name, value in document.items():
            if name in ("resources", "labels") and isinstance(value, Mapping):
                given[name] = tuple(sorted((str(key), str(item)) for key, item in value.items()))
            elif types.get(name) in (int, int | None) and isinstance(value, float) and value.is_integer():
                given[name] = int(value)  # numbers of a pipeline's parameters are floats
            elif name in types and name not in ("resources", "labels") and isinstance(value, types[name]):
                given[name] = value
            else:
                raise InputError(
                    f"{name!r}: {value!r} is no option of a service.",
                    code="BAD_SERVICE_OPTION",
                    fix=f"Options: {', '.join(types)}.",
                )
        return cls(**given)

    def identity(self) -> dict[str, Any]:
        """Return what makes a version another one: all that was given but the labels."""
        return {name: value for name, value in asdict(self).items() if name != "labels" and value}

    def given(self) -> set[str]:
        """Return the names of the options that are not at their defaults."""
        return {item.name for item in fields(self) if getattr(self, item.name) != item.default}


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@dataclass(frozen=True)
class DeployRequest:
    """What is wanted: the model at `model_uri` (path or gs://) as the version of `name` with the traffic.

    `traffic_percent` is the share at the end, `traffic_steps` what it goes through before. `fallbacks` are the
    machines to try in turn where the one of `config` is not to be had.
    """

    model_uri: str
    name: str
    config: ServingConfig = field(default_factory=ServingConfig)
    labels: tuple[str, ...] = ()  # that shall point to the version
    traffic_percent: int = 100
    keep_versions: int = DEFAULT_KEEP_VERSIONS
    allow_signature_change: bool = False
    tolerance: Tolerance = Tolerance()
    traffic_steps: tuple[int, ...] = ()
    fallbacks: tuple[ServingConfig, ...] = ()
    service: ServiceOptions = ServiceOptions()
    trust_code: bool = False  # whether a routine that the model brings may run

    def __post_init__(self) -> None:
        """Check what holds for every target.

        Raises:
            InputError: a number is out of its range, or an accelerator has no count.
        """
        if self.keep_versions < 1:
            raise InputError(
                f"keep_versions is {self.keep_versions}; at least 1 version has to stay.",
                fix=f"Give 1 or more, or leave it out for {DEFAULT_KEEP_VERSIONS}.",
            )
        if not 0 <= self.traffic_percent <= 100:
            raise InputError(
                f"traffic_percent is {self.traffic_percent}; it must be from 0 to 100.",
                fix="Give the share of requests that the new version gets, 100 for all.",
            )
        check_steps(self.traffic_steps, self.traffic_percent)
        if (self.config.accelerator_type is None) != (self.config.accelerator_count == 0):
            raise InputError(
                f"accelerator_type is {self.config.accelerator_type!r} and accelerator_count "
                f"{self.config.accelerator_count}; either both are given or none.",
                fix="Give a type and a count of 1 or more, or neither for no accelerator.",
            )


@dataclass(frozen=True)
class ModelFacts:
    """What a plan has to know about a model; read once, without TensorFlow."""

    uri: str
    digest: str
    size_bytes: int
    file_count: int
    signatures: Signatures
    golden_requests: int
    tensorflow_version: str = ""  # that saved it, where the model says
    tags: tuple[str, ...] = ()  # of the MetaGraph that alone is deployed; empty: the model as it is
    left_out: tuple[tuple[str, ...], ...] = ()  # the tags of the other ones
    is_tf1: bool = False  # no object graph: the names of tensors are those in the graph
    routine: Routine | None = None  # Python around the graph, which answers in its place
    fixed_batch: tuple[Finding, ...] = ()  # inputs and outputs whose outermost dimension is not open
    strays: tuple[FileInfo, ...] = ()  # files that are no part of a SavedModel
    for_own_code: bool = False  # whether a routine or an image of one's own answers, which may read them as well


@dataclass(frozen=True)
class Step:
    """One thing that apply does.

    Where it is a call to a service, `method` is its name there, `params` what goes into the path and the query, and
    `body` the exact request.
    """

    action: str
    detail: str
    body: Mapping[str, Any] | None = None
    method: str = ""
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What apply will do, found out without changing anything. `version` is the one that is deployed."""

    target: TargetName
    request: DeployRequest
    model: ModelFacts
    outcome: OutcomeName
    version: str
    resource: str
    steps: tuple[Step, ...]
    traffic_before: Mapping[str, int] = field(default_factory=dict)
    traffic_after: Mapping[str, int] = field(default_factory=dict)
    signature_changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    machine_type: str | None = None  # that it runs on: the one asked for, or the target's default
    exists: tuple[str, ...] = ()  # what is there and is left, or used
    upload_bytes: int | None = None  # None where nothing is uploaded
    price_per_hour: float | None = None  # USD, on demand, of the replicas that always run; None: not known
    refused: tuple[str, str, str] | None = None  # code, message, fix

    def refusal(self) -> DeployRefused | None:
        """Return why apply will refuse this plan, or None."""
        if self.refused is not None:
            code, message, fix = self.refused
            return DeployRefused(message, code=code, fix=fix)
        if not self.signature_changes or self.request.allow_signature_change:
            return None
        return DeployRefused(
            f"The signature of the new {self.request.name!r} would break clients of the live version: "
            f"{'; '.join(self.signature_changes)}.",
            code="SIGNATURE_CHANGED",
            fix="Another model gets another name (--name, in a pipeline model_name). A version keeps the names of the "
            "live one (`servegraph export SOURCE OUT --names-from LIVE_MODEL`), or is deployed with "
            "--allow-signature-change (in a pipeline allow_signature_change=true) once the clients are ready for it.",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values, for `--plan --json`."""
        refusal = self.refusal()
        return {
            "plan": True,
            "outcome": self.outcome,
            "target": self.target,
            "name": self.request.name,
            "version": self.version,
            "machine_type": self.machine_type or self.request.config.machine_type,
            "resource": self.resource,
            "config": asdict(self.request.config),
            "model": {
                "uri": self.model.uri,
                "digest": self.model.digest,
                "size_bytes": self.model.size_bytes,
                "tags": list(self.model.tags or ("serve",)),
                "left_out": [list(tags) for tags in self.model.left_out],
            },
            "exists": list(self.exists),
            "upload_bytes": self.upload_bytes,
            "price_per_hour": self.price_per_hour,
            "steps": [asdict(step) for step in self.steps],
            "traffic_before": dict(self.traffic_before),
            "traffic_after": dict(self.traffic_after),
            "signature_changes": list(self.signature_changes),
            "refused": None if refusal is None else {"code": refusal.code, "message": refusal.message},
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Outcome:
    """What a change of a target came to.

    `version` is the one that was deployed, and for other changes the one that is live now, None where none is.
    """

    outcome: OutcomeName
    target: TargetName
    name: str
    version: str | None
    resource: str
    machine_type: str | None = None
    previous: str | None = None
    traffic: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)  # what it made or used, by kind

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class DeployedVersion:
    """One version as a target has it. `created` is UTC, ISO 8601."""

    version: str
    resource: str
    digest: str
    created: str
    size_bytes: int
    config: ServingConfig
    traffic_percent: int
    labels: tuple[str, ...] = ()
    files: str = ""  # where the model's own files are, a path or gs://
    files_lost: bool = False  # they were there and are not any more: it can be neither served nor rolled back to


@dataclass(frozen=True)
class ModelVersions:
    """The versions of one model on a target, newest first."""

    target: TargetName
    name: str
    resource: str
    live: str | None
    previous: str | None
    versions: tuple[DeployedVersion, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the versions as JSON values."""
        return asdict(self)
