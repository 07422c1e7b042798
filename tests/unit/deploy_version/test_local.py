"""The local target: what is on disk after each deploy, and what others put there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from tests.tiny_models import DEBUG_FILE
from tests.unit.deploy_version.local_deploys import (
    deploy_and_die,
    files_below,
    request,
    served_digest,
    write_model,
)

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.savedmodel.layout import content_digest
from servegraph.serve.state import SPARE_FILE
from servegraph.serve.versions import wanted_model
from servegraph.storage import open_dir


def test_the_version_directory_holds_exactly_the_model(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")
    (model / "assets").mkdir()
    (model / "assets" / "vocabulary.txt").write_text("a\nb\n")
    done = deploy(request(model), target)
    assert done.resource == str(root / "census" / "1")
    assert content_digest(open_dir(done.resource)) == content_digest(open_dir(model))
    assert files_below(root) == [
        "census/.lock",
        f"census/{SPARE_FILE}",
        "census/1/assets/vocabulary.txt",
        f"census/1/{DEBUG_FILE}",
        "census/1/saved_model.pb",
        "census/versions.json",
    ]
    assert (root / "census" / "1").stat().st_mode == model.stat().st_mode  # a server of another user can read it


def test_the_graph_is_copied_last(target: LocalTarget, tmp_path: Path) -> None:
    steps: list[str] = []
    deploy(request(write_model(tmp_path, "1")), target, steps.append)
    assert steps == [
        "locked",
        f"copying {DEBUG_FILE}",
        "copying saved_model.pb",
        "staged",
        "probed",
        "announced",
        "published",
        "switched",
    ]


def test_the_plan_lists_what_is_then_done(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    deploy(request(write_model(tmp_path, "1")), target)
    plan = plan_deploy(request(write_model(tmp_path, "2"), keep_versions=1), target)
    assert [step.action for step in plan.steps] == ["copy", "probe", "publish", "switch", "remove"]
    assert plan.steps[3].detail == "version 1 -> 2"
    assert plan.steps[4].detail == "version 1"
    assert json.loads(json.dumps(plan.to_json()))["traffic_after"] == {"2": 100}


def test_the_plan_lists_the_labels_that_are_moved(target: LocalTarget, tmp_path: Path) -> None:
    wanted = request(write_model(tmp_path, "1"))
    deploy(wanted, target)
    labelled = replace(wanted, labels=("stable", "canary", "blue"))
    steps = [(step.action, step.detail) for step in plan_deploy(labelled, target).steps]
    assert steps == [("label", "version 1: blue, canary")]
    assert deploy(labelled, target).labels == {"stable": "1", "canary": "1", "blue": "1"}
    assert plan_deploy(labelled, target).steps == ()


def test_a_plain_layout_is_taken_over(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    one, two, three = (write_model(tmp_path, content) for content in "123")
    shutil.copytree(one, root / "census" / "5")
    shutil.copytree(two, root / "census" / "6")
    assert target.versions("census").live == "6"
    same = deploy(request(two), target)
    assert (same.outcome, same.version) == ("adopted", "6")
    assert deploy(request(two), target).outcome == "unchanged"
    done = deploy(request(three), target)
    assert (done.outcome, done.version, done.previous, done.removed) == ("updated", "7", "6", ("5",))


def test_a_plain_layout_keeps_serving_until_the_switch(root: Path, tmp_path: Path) -> None:
    one, two = write_model(tmp_path, "1"), write_model(tmp_path, "2")
    shutil.copytree(one, root / "census" / "5")
    steps = deploy_and_die(two, tmp_path / "elsewhere", 2, -1)
    deploy_and_die(two, root, 2, steps.index("published"))
    assert served_digest(root) == content_digest(open_dir(one))


def test_version_directories_of_others_are_left_alone(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    one, two = write_model(tmp_path, "1"), write_model(tmp_path, "2")
    deploy(request(one), target)
    shutil.copytree(two, root / "census" / "9")
    assert served_digest(root) == content_digest(open_dir(one))
    done = deploy(request(two, keep_versions=1), target)
    assert done.version == "10"
    assert "which are not served: 9" in done.warnings[-1]
    target.undeploy("census")
    # With the state gone, version 9 would go live.
    assert wanted_model(root / "census").versions == {}
    assert (root / "census" / "9" / "saved_model.pb").is_file()
