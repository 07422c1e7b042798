"""The local target: what is on disk after each crash, each failure and each bad input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.tiny_models import DEBUG_FILE, saved_model, write_tiny_model
from tests.unit.deploy_version.local_deploys import (
    DEPLOY_AND_DIE,
    assert_converged,
    deploy_and_die,
    files_below,
    request,
    say_yes,
    served_digest,
    write_model,
)

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.errors import DeployRefused, InputError, ModelError, StorageError
from servegraph.savedmodel.layout import content_digest
from servegraph.storage import open_dir


@dataclass(frozen=True)
class Scenario:
    """What is deployed over what: the live model, and one whose deploy was killed once it was published."""

    model: str
    live: str | None = None
    half_done: str | None = None
    keep: int = 2


SCENARIOS = {
    "first": Scenario("2"),
    "second": Scenario("2", live="1"),
    "replacing": Scenario("2", live="1", keep=1),
    "adopting": Scenario("2", live="1", half_done="2"),
    "adopting-first": Scenario("2", half_done="2"),
    "clearing": Scenario("3", live="1", half_done="2"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_any_step_the_old_version_serves_and_the_next_run_completes(
    name: str, root: Path, target: LocalTarget, tmp_path: Path
) -> None:
    scenario = SCENARIOS[name]
    models = {content: write_model(tmp_path, content) for content in "123"}
    model, keep, before = models[scenario.model], scenario.keep, tmp_path / "before"
    root.mkdir()
    if scenario.live:
        deploy(request(models[scenario.live]), target)
    if scenario.half_done:
        steps = deploy_and_die(models[scenario.half_done], tmp_path / "elsewhere", keep, -1)
        deploy_and_die(models[scenario.half_done], root, keep, steps.index("published"))
    old, new = served_digest(root), content_digest(open_dir(model))
    shutil.copytree(root, before)
    all_steps = deploy_and_die(model, root, keep, -1)
    assert {"probing", "switched"} <= set(all_steps)
    for fatal_step, step in enumerate(all_steps):
        shutil.rmtree(root)
        shutil.copytree(before, root)
        assert deploy_and_die(model, root, keep, fatal_step)[-1] == step
        done_steps = all_steps[: fatal_step + 1]
        assert served_digest(root) == (new if "switched" in done_steps else old), step
        done = deploy(request(model, keep_versions=keep), target)
        if "switched" in done_steps:
            assert done.outcome == "unchanged", step
        elif "published" in done_steps or scenario.half_done == scenario.model:
            assert done.outcome == "adopted", step
        else:
            assert done.outcome == ("updated" if scenario.live else "created"), step
        assert_converged(root, model, done, keep)
        assert deploy(request(model, keep_versions=keep), target).outcome == "unchanged"


def test_an_interrupted_deploy_leaves_nothing(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    deploy(request(write_model(tmp_path, "1")), target)
    before = files_below(root)

    def interrupt(step: str) -> None:
        if step == "staged":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(request(write_model(tmp_path, "2")), target, interrupt)
    assert files_below(root) == before


def test_a_deploy_that_fails_at_first_leaves_no_directory(root: Path, tmp_path: Path) -> None:
    def say_no(*_: object) -> None:
        raise DeployRefused("no", code="PROBE_FAILED")

    with pytest.raises(DeployRefused):
        deploy(request(write_model(tmp_path, "1")), LocalTarget(root, probe=say_no))
    assert list(root.iterdir()) == []


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        deploy(request(write_model(tmp_path, "1")), LocalTarget(tmp_path / "file", probe=say_yes))
    assert caught.value.exit_code == 2
    assert str(tmp_path / "file") in caught.value.message


@pytest.mark.parametrize("label", ["a/b", "a:b", ""])
def test_a_label_that_no_route_has_is_refused(root: Path, target: LocalTarget, tmp_path: Path, label: str) -> None:
    wanted = replace(request(write_model(tmp_path, "1")), labels=(label,))
    with pytest.raises(InputError) as caught:
        deploy(wanted, target)
    assert (caught.value.code, root.exists()) == ("BAD_LABEL", False)
    deploy(replace(wanted, labels=("neu 2",)), target)


def test_a_full_disk_publishes_nothing(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    deploy(request(write_model(tmp_path, "1")), target)
    before = files_below(root)
    big = write_tiny_model(tmp_path / "big", "x" * 100_000)
    # A limit on the size of files stands for a full disk: the write fails in the middle of a file.
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))" + DEPLOY_AND_DIE
    failed = subprocess.run(
        [sys.executable, "-c", script, str(big), str(root), "2", "-1"], capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert "[DISK_FULL] Cannot write" in failed.stderr
    assert files_below(root) == before
    assert served_digest(root) == content_digest(open_dir(tmp_path / "model-1"))


ON_A_FULL_DISK = """
import shutil, sys
from pathlib import Path
from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets.local import LocalTarget
place, *models = map(Path, sys.argv[1:])
target = LocalTarget(place / "root", probe=lambda *_: None)
for model in models:
    deploy(DeployRequest(str(model), "census", keep_versions=3), target)
try:
    (place / "filling").write_bytes(bytes(10**7))
except OSError:
    assert shutil.disk_usage(place).free == 0
assert target.rollback("census").version == "2"
assert target.undeploy("census", "1").version == "2"
assert [version.version for version in target.versions("census").versions] == ["3", "2"]
"""


def test_a_full_disk_can_be_rolled_back_and_freed(tmp_path: Path) -> None:
    models = [str(write_model(tmp_path, content)) for content in "123"]
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount += [
        'mount -t tmpfs -o size=1m none "$1" || exit 77; place=$1 script=$2; shift 2; exec "$0" -c "$script" "$place" "$@"',
        sys.executable,
    ]
    (tmp_path / "disk").mkdir()
    done = subprocess.run([*mount, str(tmp_path / "disk"), ON_A_FULL_DISK, *models], capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system of its own can be mounted here")
    assert done.returncode == 0, done.stderr


def test_a_model_larger_than_the_disk_is_refused_before_it_is_copied(
    root: Path, target: LocalTarget, tmp_path: Path
) -> None:
    model = write_model(tmp_path, "1")
    steps: list[str] = []
    with (model / "variables" / "variables.data-00000-of-00001").open("wb") as file:
        os.truncate(file.fileno(), 1 << 43)  # a hole: no disk holds it, none is used
    plan = plan_deploy(request(write_model(tmp_path, "2")), target)
    huge = replace(plan, model=replace(plan.model, uri=str(model)))
    with pytest.raises(StorageError, match="there is room for") as caught:
        target.apply(huge, steps.append)
    assert caught.value.code == "DISK_FULL"
    assert steps == ["locked"]


def test_links_inside_are_followed_and_links_out_are_refused(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")
    (model / "assets").mkdir()
    (model / "assets" / "a.txt").write_text("a")
    (model / "assets" / "b.txt").symlink_to("a.txt")
    deploy(request(model), target)
    copied = root / "census" / "1" / "assets" / "b.txt"
    assert copied.read_text() == "a" and not copied.is_symlink()
    (tmp_path / "secret.txt").write_text("secret")
    (model / "assets" / "c.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ModelError) as caught:
        deploy(request(model), target)
    assert caught.value.code == "LINK_OUTSIDE"
    assert not any("secret" in path.read_text() for path in root.rglob("*.txt"))


def test_a_model_that_changes_while_it_is_copied(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")

    def train_on(step: str) -> None:
        if step == "locked":
            (model / DEBUG_FILE).write_text("2")

    with pytest.raises(DeployRefused) as caught:
        deploy(request(model), target, train_on)
    assert caught.value.code == "MODEL_CHANGED"
    assert list(root.iterdir()) == []


def test_a_state_file_that_cannot_be_understood_is_not_overwritten(
    root: Path, target: LocalTarget, tmp_path: Path
) -> None:
    deploy(request(write_model(tmp_path, "1")), target)
    (root / "census" / "versions.json").write_text("{")
    with pytest.raises(InputError) as caught:
        deploy(request(write_model(tmp_path, "2")), target)
    assert caught.value.code == "BAD_STATE"
    assert (root / "census" / "versions.json").read_text() == "{"


def test_a_model_without_signatures(target: LocalTarget, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")
    (model / "saved_model.pb").write_bytes(saved_model(name=""))
    with pytest.raises(ModelError) as caught:
        deploy(request(model), target)
    assert caught.value.code == "NO_SIGNATURE"
    (model / "saved_model.pb").write_bytes(saved_model(tags=["train"]))
    with pytest.raises(ModelError, match=r"no MetaGraph with the tag 'serve' .*only \{train\}") as caught:
        deploy(request(model), target)
    assert caught.value.code == "NO_SERVING_TAG"


def test_shares_rise_at_once_on_this_machine(target: LocalTarget, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        deploy(request(write_model(tmp_path, "1"), traffic_steps=(10, 100)), target)
    assert caught.value.code == "NO_TRAFFIC_STEPS"
