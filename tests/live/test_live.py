"""The contract of a target, as in tests/contract, on a real service: the same tests with another site.

Skipped unless `SERVEGRAPH_LIVE` says where, as JSON. Each test deploys real models under a name of its own and removes
it; that costs money, and on Vertex AI up to half an hour a deployment:

    SERVEGRAPH_LIVE='{"target": "vertex", "project": "P", "region": "us-central1", "staging": "gs://bucket/live"}' \\
        pytest tests/live

On Vertex AI servegraph's serving image has to be in the project's Artifact Registry (docs/deploy.md).
`{"target": "local", "root": "/tmp/live"}` needs no account: what serves then is the real server.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.life import live_through
from tests.contract.target_suite import *  # noqa: F403
from tests.contract.target_suite import There, Write
from tests.live.doubling import write_doubling_model

from servegraph.deploy_version.targets import Place, Target, open_target
from servegraph.serve.state import ServingConfig

SITE: dict[str, Any] = json.loads(os.environ.get("SERVEGRAPH_LIVE", "{}"))
CONFIGS = {
    "kserve": (ServingConfig("container"), ServingConfig()),
    "ai-platform": (ServingConfig("mls1-c1-m2"), ServingConfig("mls1-c4-m2")),
}
MACHINES = (ServingConfig("n1-standard-2"), ServingConfig("n1-standard-4"))

pytestmark = pytest.mark.skipif(not SITE, reason="SERVEGRAPH_LIVE does not say where; see tests/live/test_live.py")


def opened() -> Target:
    return open_target(SITE["target"], Place(**{key: value for key, value in SITE.items() if key != "target"}))


@pytest.fixture
def place() -> Iterator[There]:
    name = f"live-{uuid.uuid4().hex[:8]}"
    yield There(opened, CONFIGS.get(SITE["target"], MACHINES), shares=SITE["target"] != "ai-platform", name=name)
    opened().undeploy(name)


@pytest.fixture
def model(tmp_path: Path) -> Write:
    made: list[Path] = []

    def write(content: str = "1", **parts: Any) -> str:
        made.append(write_doubling_model(tmp_path / "models" / str(len(made)), content, **parts))
        return str(made[-1])

    return write


def test_the_life_of_a_model(place: There, tmp_path: Path) -> None:
    live_through(place.open(), place.name, tmp_path, splits=SITE["target"] in ("vertex", "kserve"))
