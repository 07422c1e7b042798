"""`deploy`, `versions`, `rollback`, `undeploy`, `serve` as a user runs them: exit codes, stdout, stderr."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_models import write_tiny_model

from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.machines.sizes import format_size
from servegraph.serve.server import listen


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = "from servegraph_pipelines.cli import main; main()"
    return subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)


def run_json(*arguments: object, code: int = 0) -> Any:
    done = run(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with two versions of `census`, the second live."""
    target = LocalTarget(tmp_path / "root", probe=lambda *_: None)
    for content in "12":
        deploy(DeployRequest(str(write_tiny_model(tmp_path / content, content)), "census"), target)
    return tmp_path / "root"


def test_a_plan_is_shown_and_nothing_is_done(root: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "3", "3")
    shown = run("deploy", model, "--root", root, "--name", "census", "--plan")
    size = format_size(sum(path.stat().st_size for path in model.rglob("*") if path.is_file()))
    assert shown.returncode == 0
    for word in ("updated", "copy", "probe", "publish", "switch", "version 2 -> 3", "remove"):
        assert word in shown.stdout
    assert f"2 files, {size} from" in shown.stdout
    assert "no golden requests" in shown.stderr
    plan = run_json("deploy", model, "--root", root, "--name", "census", "--plan", "--machine-type", "n1-standard-2")
    assert (plan["outcome"], plan["version"], plan["machine_type"]) == ("updated", "3", "n1-standard-2")
    assert plan["refused"] is None
    assert run_json("versions", "--root", root, "--name", "census")["live"] == "2"


def test_brackets_in_a_path_are_no_markup(tmp_path: Path) -> None:
    for name in ("data[v1]", "rt[/b]"):
        model = write_tiny_model(tmp_path / name, "1")
        shown = run("deploy", model, "--root", tmp_path / "root", "--name", "census", "--plan")
        assert f"from {model}\n" in shown.stdout, shown.stderr


def test_a_root_that_tensorflow_takes_for_a_pattern_is_refused(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "1", "1")
    error = run_json("deploy", model, "--root", tmp_path / "data[v1]", "--name", "census", code=2)["error"]
    assert "'[' in a path for a wildcard" in error["message"] and "--root" in error["fix"]
    assert not (tmp_path / "data[v1]").exists()


def test_what_the_local_target_has_no_use_for_is_said(root: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "3", "3")
    given = ["deploy", model, "--root", root, "--name", "census", "--plan"]
    unused = ["--project", "p", "--api-url", "http://x", "--min-replicas", "2", "--service-label", "team=a", "--spot"]
    done = run(*given, *unused, "--machine-type", "n1-standard-2")
    said = done.stderr.splitlines()
    assert done.returncode == 0
    assert said[0].endswith("this machine: --project, --api-url.")
    assert said[1].endswith("this machine: --min-replicas, --spot, --service-label.")
    assert "only recorded with the version" in said[2]
    assert "note" not in run(*given).stderr
    assert "--region" in run("versions", "--root", root, "--name", "census", "--region", "us-central1").stderr


def test_a_plan_that_would_be_refused_exits_1(root: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "3", "3", inputs={"z": ("int64", [None])})
    plan = run_json("deploy", model, "--root", root, "--name", "census", "--plan", code=1)
    assert plan["refused"]["code"] == "SIGNATURE_CHANGED"
    refused = run_json("deploy", model, "--root", root, "--name", "census", code=1)
    assert refused["error"]["code"] == "SIGNATURE_CHANGED"
    assert "another name (--name, in a pipeline model_name)" in refused["error"]["fix"]
    allowed = run_json(
        "deploy", model, "--root", root, "--name", "census", "--plan", "--allow-signature-change", code=0
    )
    assert allowed["refused"] is None


def test_deploying_what_is_live_is_unchanged(root: Path, tmp_path: Path) -> None:
    done = run_json("deploy", tmp_path / "2", "--target", "local", "--root", root, "--name", "census")
    assert done == {
        "outcome": "unchanged",
        "target": "local",
        "name": "census",
        "version": "2",
        "resource": str(root / "census" / "2"),
        "machine_type": None,
        "previous": "1",
        "traffic": {"2": 100},
        "labels": {"stable": "2"},
        "removed": [],
        "warnings": [],
        "links": {},
    }
    text = run("deploy", tmp_path / "2", "--root", root, "--name", "census")
    assert "census: unchanged, version 2 is live (before it: 1)." in text.stdout


def test_versions_rollback_and_undeploy(root: Path) -> None:
    options = ("--target", "local", "--root", root, "--name", "census")
    listed = run("versions", *options)
    assert "100 %" in listed.stdout and "(previous)" in listed.stdout
    assert format_size(sum(path.stat().st_size for path in (root / "census" / "2").rglob("*.*"))) in listed.stdout
    back = run_json("rollback", *options)
    assert (back["outcome"], back["version"]) == ("rolled_back", "1")
    again = run("rollback", *options)
    assert again.returncode == 0
    assert "already rolled back from version 2 to 1" in again.stderr
    assert run_json("rollback", *options, "--to", "2")["version"] == "2"
    assert run_json("undeploy", "2", *options, code=1)["error"]["code"] == "HAS_TRAFFIC"
    assert run_json("undeploy", "1", *options)["removed"] == ["1"]
    assert run_json("undeploy", "--all", *options)["version"] is None
    assert run_json("versions", *options, code=2)["error"]["code"] == "NOT_DEPLOYED"
    assert run_json("undeploy", "--all", *options)["outcome"] == "unchanged"


def test_a_version_whose_files_are_gone_is_listed_as_such(root: Path) -> None:
    options = ("--root", root, "--name", "census")
    shutil.rmtree(root / "census" / "1")
    assert "1 (previous, files lost)" in run("versions", *options).stdout
    assert [version["files_lost"] for version in run_json("versions", *options)["versions"]] == [False, True]
    assert run_json("rollback", *options, code=1)["error"]["code"] == "FILES_LOST"


# One row a mistake: the arguments, what stderr says.
MISTAKES = [
    (("deploy", "MODEL", "--root", "ROOT", "--name", "../x"), "BAD_MODEL_NAME"),
    (("deploy", "MODEL", "--name", "x"), "--root ROOT"),
    (("deploy", "ROOT", "--root", "ROOT", "--name", "x"), "NOT_A_SAVED_MODEL"),
    (("deploy", "MISSING", "--root", "ROOT", "--name", "x"), "MISSING"),
    (("deploy", "MODEL", "--root", "ROOT", "--name", "x", "--keep", "0"), "at least 1 version"),
    (("deploy", "MODEL", "--root", "ROOT", "--name", "x", "--target", "moon"), "moon"),
    (
        ("deploy", "MODEL", "--root", "ROOT", "--name", "x", "--accelerator-count", "1"),
        "accelerator_type is None",
    ),
    (("undeploy", "--root", "ROOT", "--name", "x"), "either a VERSION or --all"),
    (("undeploy", "1", "--all", "--root", "ROOT", "--name", "x"), "either a VERSION or --all"),
    (("undeploy", "one", "--root", "ROOT", "--name", "census"), "whole numbers"),
    (("rollback", "--root", "ROOT", "--name", "nothing"), "NOT_DEPLOYED"),
    (("serve", "MISSING"), "MISSING"),
    (("serve", "MODEL"), "NOT_A_SERVING_ROOT"),
    (("serve", "ROOT", "--port", "99999"), "--port"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES)
def test_mistakes_exit_2_with_one_clear_error(
    arguments: tuple[str, ...], says: str, root: Path, tmp_path: Path
) -> None:
    names = {"MODEL": str(tmp_path / "1"), "ROOT": str(root), "MISSING": str(tmp_path / "MISSING")}
    done = run(*(names.get(argument, argument) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_refused_before_anything_is_loaded(root: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        done = run("serve", root, "--port", taken.getsockname()[1])
    assert done.returncode == 2
    assert "SERVE_PORT_IN_USE" in done.stderr
    assert "--port" in done.stderr


def test_deploying_needs_neither_tensorflow_nor_kfp_nor_numpy() -> None:
    verbs = ", ".join(f"cmd_{verb}" for verb in ("deploy", "rollback", "serve", "undeploy", "versions"))
    script = (
        f"import sys; from servegraph_pipelines.cli import {verbs}\n"
        "import servegraph.deploy_version.targets.local, servegraph.serve.child\n"
        "print(sorted({'tensorflow', 'kfp', 'numpy', 'rich', 'uvicorn'} & set(sys.modules)))\n"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
