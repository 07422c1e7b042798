"""The life of a model on a target, whatever it is: on emulators with a real server behind, and on real projects."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets import Target
from servegraph.errors import DeployRefused
from servegraph.savedmodel.layout import GOLDEN_FILE

HALF = Path(__file__).parents[1] / "serving" / "models" / "half"


def half_plus_two(directory: Path, note: str, answers: tuple[float, float] = (2.5, 4.5)) -> str:
    """The same model with another note in it, which makes it another version."""
    golden = {"signature_name": "serving_default", "inputs": {"x": [1.0, 5.0]}, "outputs": {"y": answers}}
    shutil.copytree(HALF, directory)
    (directory / "assets.extra").mkdir(exist_ok=True)
    (directory / GOLDEN_FILE).write_text(json.dumps(golden))
    (directory / "assets.extra" / "note.txt").write_text(note)
    return str(directory)


def live_through(target: Target, name: str, folder: Path, *, splits: bool) -> None:
    """Planned, deployed, unchanged, answering wrongly, held at 0 %, shared out by steps, rolled back, removed."""
    first = DeployRequest(half_plus_two(folder / "1", "one"), name)
    assert plan_deploy(first, target).refusal() is None
    done = deploy(first, target, print)
    assert (done.outcome, dict(done.traffic)) == ("created", {done.version: 100})
    old = done.version
    assert deploy(first, target, print).outcome == "unchanged"

    with pytest.raises(DeployRefused, match=r"output 'y'\[1\]: expected 4\.6, got 4\.5") as wrong:
        deploy(replace(first, model_uri=half_plus_two(folder / "wrong", "wrong", (2.5, 4.6))), target, print)
    assert wrong.value.code == "PROBE_FAILED"
    assert [(v.version, v.traffic_percent) for v in target.versions(name).versions] == [(old, 100)]

    second = replace(first, model_uri=half_plus_two(folder / "2", "two"))
    held = deploy(replace(second, traffic_percent=0), target, print)
    assert (held.outcome, dict(held.traffic)) == ("updated", {old: 100})
    done = deploy(replace(second, traffic_steps=(20, 100) if splits else ()), target, print)
    assert (done.version, done.previous, dict(done.traffic)) == (held.version, old, {held.version: 100})

    assert target.rollback(name).version == old
    assert target.rollback(name).outcome == "unchanged"
    assert [v.version for v in target.versions(name).versions] == [held.version, old]
    assert target.undeploy(name).removed == (old, held.version)
    assert target.undeploy(name).outcome == "unchanged"
