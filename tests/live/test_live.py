"""The life of a model on a real service: deployed, unchanged, replaced by steps, rolled back, removed.

Skipped unless `SERVEGRAPH_LIVE` says where, as JSON; it costs money and takes up to an hour:

    SERVEGRAPH_LIVE='{"target": "vertex", "project": "P", "region": "us-central1", "staging": "gs://bucket/live",
                      "image": "us-central1-docker.pkg.dev/P/servegraph/python-serving:0.1.0"}' pytest tests/live
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest, ServiceOptions
from servegraph.deploy_version.targets import Place, Target, open_target
from servegraph.savedmodel.layout import GOLDEN_FILE

PLACE: dict[str, Any] = json.loads(os.environ.get("SERVEGRAPH_LIVE", "{}"))
HALF = Path(__file__).parents[1] / "serving" / "models" / "half"
GOLDEN = {"signature_name": "serving_default", "inputs": {"x": [1.0, 5.0]}, "outputs": {"y": [2.5, 4.5]}}

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


def half_plus_two(directory: Path, note: str) -> str:
    """The same model with another note in it, which makes it another version."""
    shutil.copytree(HALF, directory)
    (directory / "assets.extra").mkdir()
    (directory / GOLDEN_FILE).write_text(json.dumps(GOLDEN))
    (directory / "assets.extra" / "note.txt").write_text(note)
    return str(directory)


def test_the_life_of_a_model(target: Target, name: str, tmp_path: Path) -> None:
    splits = PLACE["target"] != "ai-platform"
    one = DeployRequest(half_plus_two(tmp_path / "1", "one"), name, service=ServiceOptions(image=PLACE.get("image")))
    two = DeployRequest(
        half_plus_two(tmp_path / "2", "two"),
        name,
        traffic_steps=(20, 100) if splits else (),
        service=ServiceOptions(image=PLACE.get("image")),
    )
    assert deploy(one, target, print).outcome == "created"
    assert deploy(one, target, print).outcome == "unchanged"
    done = deploy(two, target, print)
    assert (done.outcome, done.previous, dict(done.traffic)) == ("updated", "1", {"2": 100})
    assert target.rollback(name).version == "1"
    assert target.rollback(name).outcome == "unchanged"
    assert [v.version for v in target.versions(name).versions] == ["2", "1"]
    gone = target.undeploy(name)
    assert gone.removed == ("1", "2")
