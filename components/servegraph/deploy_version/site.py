"""Where a deploy to a service happens: the service, the place for model files, and how long to wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from typing import Any

from servegraph.deploy_version.faults import Patience
from servegraph.deploy_version.remote import Goal, Seen, Service, Staged
from servegraph.storage import Directory, open_dir
from servegraph.storage.gcs import GcsDirectory
from servegraph.storage.gcs_lease import TTL_S
from servegraph.storage.gcs_upload import Sizes, staged_files

LOCK_FILE = "lock.json"


@dataclass(frozen=True)
class Waits:
    """How long to wait for what; other than the defaults only in tests."""

    lock_timeout_s: float = 300.0
    lock_ttl_s: float = TTL_S
    patience: Callable[[], Patience] = Patience


@dataclass(frozen=True)
class Staging:
    """Where model files go: `uri` is gs://bucket/prefix; `client` a `google.cloud.storage.Client` or None."""

    uri: str
    client: Any = None
    sizes: Sizes = field(default_factory=Sizes)

    def of(self, name: str) -> str:
        """Return the place of one model."""
        return f"{self.uri.rstrip('/')}/{name}"

    def lock(self, name: str) -> str:
        """Return the lock of one model."""
        return f"{self.of(name)}/{LOCK_FILE}"


def utc_today() -> date:
    """Return the day that end dates are compared with."""
    return datetime.now(timezone.utc).date()


@dataclass(frozen=True)
class Site:
    """A service with its staging place; all that a change of it needs."""

    service: Service
    staging: Staging
    waits: Waits = field(default_factory=Waits)
    today: Callable[[], date] = utc_today

    def look(self, name: str, goal: Goal | None) -> Seen:
        """Return what the service has of `name`, and of the goal's files what is staged."""
        seen = self.service.see(name, goal)
        if goal is None:
            return seen
        place = self.service.layout(goal.artifact_uri)
        return replace(seen, staged=Staged(place, staged_files(place, self.staging.client)))

    def open(self, uri: str) -> Directory:
        """Return the directory at `uri`, read with the staging's client where it is on Cloud Storage."""
        return GcsDirectory(uri, self.staging.client) if uri.startswith("gs://") else open_dir(uri)
