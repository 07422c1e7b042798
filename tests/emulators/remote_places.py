"""The three targets that are services, opened on emulators: for the contract and the fault tests, in any process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import aiplatform_v1, storage  # noqa: F401  a forked process finds it loaded
from googleapiclient import discovery  # noqa: F401
from kubernetes import client  # noqa: F401
from tests.emulators.ai_platform import FakeAiPlatform
from tests.emulators.kserve import FakeKserve
from tests.emulators.vertex import FakeVertex

from servegraph.deploy_version.cloud_logging import CloudLogging
from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.faults import Patience
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.remote import Service
from servegraph.deploy_version.site import Site, Staging, Waits
from servegraph.deploy_version.targets.ai_platform import AiPlatform
from servegraph.deploy_version.targets.ai_platform_api import AiPlatformApi
from servegraph.deploy_version.targets.kserve import Kserve
from servegraph.deploy_version.targets.kserve_api import KserveApi
from servegraph.deploy_version.targets.remote_target import RemoteTarget
from servegraph.deploy_version.targets.vertex import Vertex
from servegraph.deploy_version.targets.vertex_api import VertexApi
from servegraph.errors import ServegraphError

TODAY = date(2026, 11, 25)
FAKES: dict[str, Callable[[], Any]] = {
    "vertex": FakeVertex,
    "ai-platform": FakeAiPlatform,
    "kserve": FakeKserve,
}


def hasty() -> Patience:
    """Patience for tests: the same rule, with short waits."""
    return Patience(deadline_s=5.0, first_s=0.01, longest_s=0.1)


class Hurried(AuthorizedSession):
    """The storage client's transport, with another timeout than the one it has by itself."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(AnonymousCredentials())
        self._timeout_s = timeout_s

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        return super().request(method, url, *args, **{**options, "timeout": self._timeout_s})


@dataclass(frozen=True)
class Emulated:
    """Where the emulators of a target are: values that another process can be given."""

    kind: str
    service_url: str
    storage_url: str
    lock_timeout_s: float = 0.3
    call_timeout_s: float = 30.0
    region: str | None = "us-central1"  # None: AI Platform's global endpoint

    def open(self, stack: ExitStack) -> RemoteTarget:
        """Open the target; its connections are closed with `stack`."""
        files = storage.Client(
            project="test",
            credentials=AnonymousCredentials(),
            _http=Hurried(self.call_timeout_s),
            client_options={"api_endpoint": self.storage_url},
        )
        stack.callback(files.close)
        waits = Waits(lock_timeout_s=self.lock_timeout_s, lock_ttl_s=5.0, patience=hasty)
        return RemoteTarget(Site(self._service(stack), Staging("gs://bucket/models", files), waits, lambda: TODAY))

    def _service(self, stack: ExitStack) -> Service:
        if self.kind == "vertex":
            region = self.region or "us-central1"
            api = VertexApi(region, self.service_url, 0.01, hasty, self.call_timeout_s)
            logging = CloudLogging("p", self.service_url)
            stack.callback(logging.close)
            return Vertex("p", region, api, logging)
        if self.kind == "ai-platform":
            api = AiPlatformApi(self.region, self.service_url, 0.01, hasty, self.call_timeout_s)
            stack.callback(api.close)
            return AiPlatform("p", self.region, api, today_is_fine=True)
        cluster = KserveApi("default", None, self.service_url, 0.01, hasty, self.call_timeout_s)
        stack.callback(cluster.close)
        return Kserve(cluster)


def deploy_and_exit(place: Emulated, request: DeployRequest, report: Path) -> None:
    """Deploy in a process of its own: exit code 0, 3 with an error of ours, 130 when interrupted."""
    with ExitStack() as stack:
        try:
            deploy(request, place.open(stack), lambda step: report.open("a").write(step + "\n"))
        except ServegraphError as error:
            report.open("a").write(f"{error}\n")
            sys.exit(3)
        except KeyboardInterrupt:
            sys.exit(130)
