"""The life of a model on a real service.

Skipped unless `SERVEGRAPH_LIVE` says where, as JSON; it costs money and takes up to two hours:

    SERVEGRAPH_LIVE='{"target": "vertex", "project": "P", "region": "us-central1", "staging": "gs://bucket/live",
                      "image": "us-central1-docker.pkg.dev/P/servegraph/python-serving:0.1.0"}' pytest tests/live
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.live.life import live_through

from servegraph.deploy_version.targets import Place, Target, open_target

PLACE: dict[str, Any] = json.loads(os.environ.get("SERVEGRAPH_LIVE", "{}"))

pytestmark = pytest.mark.skipif(not PLACE, reason="SERVEGRAPH_LIVE does not say where")


@pytest.fixture
def target() -> Target:
    fields = {key: value for key, value in PLACE.items() if key not in ("target", "image")}
    return open_target(PLACE["target"], Place(**fields))


@pytest.fixture
def name(target: Target) -> Iterator[str]:
    name = f"live-{uuid.uuid4().hex[:8]}"
    yield name
    target.undeploy(name)


def test_the_life_of_a_model(target: Target, name: str, tmp_path: Path) -> None:
    splits = PLACE["target"] != "ai-platform"
    live_through(target, name, tmp_path, splits=splits, image=PLACE.get("image"))
