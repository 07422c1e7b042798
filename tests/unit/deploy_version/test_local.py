"""The local target: what is on disk after each deploy, each failure and each crash."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.tiny_models import saved_model, write_tiny_model

from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.lock import locked
from servegraph.deploy_version.plan import DeployRequest, Outcome
from servegraph.deploy_version.targets import Place, open_target
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.errors import DeployRefused, InputError, ModelError, StorageError
from servegraph.live_version.live import find_live
from servegraph.savedmodel.layout import content_digest
from servegraph.serve.state import SPARE_FILE, STATE_FILE, read_state, write_state
from servegraph.serve.versions import wanted_model
from servegraph.storage import open_dir


def say_yes(*_: object) -> None:
    """A probe that finds nothing wrong."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def target(root: Path) -> LocalTarget:
    return LocalTarget(root, probe=say_yes, lock_timeout_s=0.3)


def request(model: Path, **options: object) -> DeployRequest:
    return DeployRequest(str(model), "census", **options)


def write_model(tmp_path: Path, content: str) -> Path:
    return write_tiny_model(tmp_path / f"model-{content}", content)


def files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


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
        "census/1/saved_model.pb",
        "census/1/variables/variables.index",
        "census/versions.json",
    ]
    assert (root / "census" / "1").stat().st_mode == model.stat().st_mode  # a server of another user can read it


def test_the_graph_is_copied_last(target: LocalTarget, tmp_path: Path) -> None:
    steps: list[str] = []
    deploy(request(write_model(tmp_path, "1")), target, steps.append)
    assert steps == [
        "locked",
        "copying variables/variables.index",
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


# Crashes

DEPLOY_AND_DIE = """
import os, signal, sys
from pathlib import Path
from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets import Place, open_target
from servegraph.deploy_version.targets.local import LocalTarget

model, root, keep, fatal = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
steps = []

def on_step(step):
    print(step, flush=True)
    if len(steps) == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    steps.append(step)

def probe(*_):
    on_step("probing")

deploy(DeployRequest(model, "census", keep_versions=keep), LocalTarget(Path(root), probe=probe), on_step)
"""


def deploy_and_die(model: Path, root: Path, keep: int, fatal_step: int) -> list[str]:
    """Deploy in a process that is killed at step `fatal_step` (-1: never) and return the steps it got to."""
    command = [sys.executable, "-c", DEPLOY_AND_DIE, str(model), str(root), str(keep), str(fatal_step)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == (0 if fatal_step < 0 else -signal.SIGKILL), done.stderr
    return done.stdout.splitlines()


def served_digest(root: Path) -> str | None:
    """Return the digest of the files that a server would load for unversioned requests."""
    if not (root / "census").exists():
        return None
    wanted = wanted_model(root / "census")
    live = max(wanted.traffic, default=None)
    return None if live is None else content_digest(open_dir(wanted.versions[live].directory))


def assert_converged(root: Path, model: Path, done: Outcome, keep: int) -> None:
    state = read_state(root / "census")
    assert state is not None
    assert state.live == int(done.version or 0)
    assert state.versions[state.live].digest == content_digest(open_dir(model)) == served_digest(root)
    assert [record.digest for record in state.versions.values()].count(state.versions[state.live].digest) == 1
    assert state.unfinished == ()
    assert len(state.versions) <= keep
    expected = {".lock", SPARE_FILE, STATE_FILE, *map(str, state.versions)}
    assert {entry.name for entry in (root / "census").iterdir()} == expected
    for number, record in state.versions.items():
        assert content_digest(open_dir(root / "census" / str(number))) == record.digest


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


# Bad input and a bad disk


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
    with pytest.raises(StorageError) as caught:
        deploy(request(model), target)
    assert caught.value.code == "LINK_OUTSIDE"
    assert not any("secret" in path.read_text() for path in root.rglob("*.txt"))


def test_a_model_that_changes_while_it_is_copied(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")

    def train_on(step: str) -> None:
        if step == "locked":
            (model / "variables" / "variables.index").write_text("2")

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


# What others put there


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


# Two at once


def test_a_version_whose_files_are_gone_is_not_live(
    root: Path, target: LocalTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [write_model(tmp_path, content) for content in "12"]
    for model in models:
        deploy(request(model), target)
    shutil.rmtree(root / "census" / "2")
    assert [(v.version, v.files_lost) for v in target.versions("census").versions] == [("2", True), ("1", False)]
    assert find_live("census", "local", (str(root), "", "", "", "", "")) == ("", "")
    assert "warning: the files of version 2 of census, which is live, are gone" in capsys.readouterr().out
    plan = plan_deploy(request(models[1]), target)
    assert (plan.outcome, plan.version, dict(plan.traffic_before)) == ("updated", "3", {"2": 100})
    done = deploy(request(models[1]), target)
    assert (done.outcome, done.version, done.removed, dict(done.traffic)) == ("updated", "3", ("2",), {"3": 100})
    assert any("are gone" in warning and "2; this deploy forgets them" in warning for warning in done.warnings)
    assert [(v.version, v.files_lost) for v in target.versions("census").versions] == [("3", False), ("1", False)]
    assert find_live("census", "local", (str(root), "", "", "", "", "")) == ("3", str(root / "census" / "3"))
    assert deploy(request(models[1]), target).outcome == "unchanged"


def test_what_is_lost_is_not_rolled_back_to(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    for content in "12":
        deploy(request(write_model(tmp_path, content)), target)
    (root / "census" / "1" / "saved_model.pb").unlink()
    for to in (None, "1"):
        with pytest.raises(DeployRefused, match="files of version 1 of census are gone") as caught:
            target.rollback("census", to)
        assert (caught.value.code, "Versions: 2." in caught.value.fix) == ("FILES_LOST", True)
    assert target.versions("census").live == "2"


def test_a_deploy_that_fails_does_not_take_a_lost_version_from_a_running_server(root: Path, tmp_path: Path) -> None:
    deploy(request(write_model(tmp_path, "1")), LocalTarget(root, probe=say_yes))
    shutil.rmtree(root / "census" / "1")

    def say_no(*_: object) -> None:
        raise DeployRefused("It answers otherwise.", code="PROBE_FAILED")

    with pytest.raises(DeployRefused):
        deploy(request(write_model(tmp_path, "2")), LocalTarget(root, probe=say_no))
    state = read_state(root / "census")
    assert state is not None
    assert dict(state.traffic) == {1: 100}


def test_the_second_waits_and_says_who_holds_the_lock(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")
    with locked(root / "census", 0), pytest.raises(DeployRefused) as caught:
        deploy(request(model), target)
    assert caught.value.code == "LOCKED"
    assert f"process {os.getpid()} on {os.uname().nodename} since 20" in caught.value.message
    assert deploy(request(model), target).outcome == "created"


def test_two_deploys_of_the_same_model_at_once_make_one_version(root: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")
    outcomes: list[str] = []

    def run() -> None:
        target = LocalTarget(root, probe=say_yes, lock_timeout_s=10)
        outcomes.append(deploy(request(model), target).outcome)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["created", "unchanged", "unchanged", "unchanged"]
    assert [entry.name for entry in (root / "census").iterdir() if entry.name.isdigit()] == ["1"]


def test_a_lock_file_that_was_removed_with_its_model_is_no_lock(tmp_path: Path) -> None:
    directory = tmp_path / "census"
    with locked(directory, 0):
        stale = os.open(directory / ".lock", os.O_RDWR)
        (directory / ".lock").unlink()
    fcntl.flock(stale, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with locked(directory, 0):
        pass
    os.close(stale)


def test_many_come_and_go_at_once(root: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path, "1")
    errors: list[BaseException] = []

    def run() -> None:
        target = LocalTarget(root, probe=say_yes, lock_timeout_s=30)
        try:
            for _ in range(5):
                deploy(request(model), target)
                target.undeploy("census")
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(root.iterdir()) == []


def test_undeploying_what_is_no_model_touches_nothing(root: Path, target: LocalTarget) -> None:
    (root / "notes").mkdir(parents=True)
    (root / "notes" / "a.txt").write_text("a")
    assert target.undeploy("notes").outcome == "unchanged"
    assert files_below(root) == ["notes/a.txt"]


def test_an_undeploy_that_was_cut_short_is_completed(root: Path, target: LocalTarget, tmp_path: Path) -> None:
    deploy(request(write_model(tmp_path, "1")), target)
    state = read_state(root / "census")
    assert state is not None
    write_state(root / "census", state.without((1,)))  # what is written before the files are removed
    assert wanted_model(root / "census").versions == {}
    target.undeploy("census")
    assert list(root.iterdir()) == []


def test_a_root_on_cloud_storage_is_not_made_a_local_directory() -> None:
    with pytest.raises(InputError, match="'gs://bucket/root' is an address"):
        open_target("local", Place(root="gs://bucket/root"))
