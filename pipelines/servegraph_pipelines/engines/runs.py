"""What every engine speaks in: a request for a run, and the state of a run. Values only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from servegraph.deploy_version.option_forms import check_forms
from servegraph.deploy_version.plan import ServiceOptions
from servegraph.errors import InputError, ServegraphError
from servegraph_pipelines.resources import EngineName
from servegraph_pipelines.specification import Specification
from servegraph_pipelines.why import PastRun

StepStatus = Literal["waiting", "running", "succeeded", "cached", "skipped", "failed", "cancelled"]
RunStatus = Literal["waiting", "running", "succeeded", "failed", "cancelled"]
_NAME = re.compile(r"[a-z][-a-z0-9]{0,127}")
_LABEL_KEY, _LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class RunOptions:
    """How a run is to be run, beyond what it computes. What an engine has no use for, it refuses."""

    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str | None = None
    network: str | None = None  # vertex: projects/NUMBER/global/networks/NAME
    encryption_key: str | None = None  # vertex: projects/P/locations/L/keyRings/R/cryptoKeys/K
    fail_fast: bool = False  # vertex: start no further step once one has failed

    def __post_init__(self) -> None:
        """Check the labels: lower case, digits, `_` and `-`, as Google Cloud and Kubernetes both take.

        Raises:
            InputError: one is not of that form (code `BAD_LABEL`).
        """
        for key, value in self.labels.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                fix = "Write lower-case letters, digits, - and _, a letter first: team=fraud."
                raise InputError(f"{key}={value} is no label.", code="BAD_LABEL", fix=fix)


def check_names(options: RunOptions, region: str | None = None) -> None:
    """Hold the names of resources to the forms that Google Cloud has for them, as a deploy does.

    Raises:
        InputError: one is not formed so (code `BAD_RESOURCE_NAME`), or lies outside of `region` (`OTHER_REGION`).
    """
    names = {name: getattr(options, name) for name in ("service_account", "network", "encryption_key")}
    check_forms(ServiceOptions(**names), region)


@dataclass(frozen=True)
class RunRequest:
    """A run as it is sent: the pipeline with all that was chosen for it, and checked parameters.

    `name` is the run's own and makes sending it twice one run.
    """

    name: str
    specification: Specification
    parameters: Mapping[str, Any]
    options: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        """Check the name. Raises `InputError` (code `BAD_RUN_NAME`)."""
        if not _NAME.fullmatch(self.name):
            fix = "Write a lower-case letter, then up to 127 letters, digits and -."
            raise InputError(f"{self.name!r} is no name of a run.", code="BAD_RUN_NAME", fix=fix)


@dataclass(frozen=True)
class StepState:
    """One step of a run; `started` is in seconds since 1970, `log` is what the engine calls its log."""

    name: str
    status: StepStatus
    started: float = 0.0
    seconds: float | None = None
    message: str = ""  # the engine's words where it failed
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunState:
    """A run as the engine has it; `id` is the engine's."""

    id: str
    link: str
    status: RunStatus
    steps: tuple[StepState, ...] = ()
    message: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.status in ("succeeded", "failed", "cancelled")

    def to_json(self, error: ServegraphError | None = None) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {
            "run": self.id,
            "link": self.link,
            "status": self.status,
            "steps": [{"name": s.name, "status": s.status, "seconds": s.seconds} for s in self.steps],
            "error": {"code": error.code, "message": error.message, "fix": error.fix} if error else None,
        }


class Engine(Protocol):
    """A service that runs pipelines."""

    name: EngineName

    def body(self, request: RunRequest) -> dict[str, Any]:
        """Return the exact request for a run; nothing is sent.

        Raises:
            InputError: the engine does not take such a run (code `NOT_FOR_ENGINE`, `BAD_REQUEST_BODY`).
        """

    def submit(self, request: RunRequest) -> RunState:
        """Start the run, or find it where an answer got lost; it is there once however often this is tried.

        Raises:
            InputError: see `body`.
            Refusal: the engine refuses it, or cannot be reached.
        """

    def state(self, run_id: str) -> RunState:
        """Return the state of a run; faults that pass are waited out."""

    def log(self, run_id: str, step: StepState) -> list[str]:
        """Return the last lines that a step printed, empty where they cannot be read."""

    def past(self, run_id: str) -> PastRun:
        """Return what ran."""

    def past_before(self, run_id: str) -> PastRun:
        """Return what ran before, of the same pipeline.

        Raises:
            InputError: there is none before it (code `NO_RUN_BEFORE`).
        """

    def close(self) -> None:
        """Close the connections."""


def in_seconds(timestamp: str | datetime | None) -> float | None:
    """Return the seconds since 1970 of a time as engines write it, None where there is none."""
    if timestamp is None or timestamp == "":
        return None
    if isinstance(timestamp, datetime):
        return timestamp.timestamp()
    plain = re.sub(r"\.\d+", "", timestamp).replace("Z", "+00:00")  # Python 3.10 reads no nanoseconds
    return datetime.fromisoformat(plain).timestamp()


def duration(start: float | None, end: float | None) -> float | None:
    """Return how long something took, None while it has not ended."""
    return round(end - start, 2) if start and end and end >= start else None


def none_before(run_id: str, pipeline: str) -> InputError:
    """Return the error for a run that is the first of its pipeline."""
    fix = "Name the run to compare with: --against RUN."
    return InputError(f"There is no run of {pipeline} before {run_id}.", code="NO_RUN_BEFORE", fix=fix)
