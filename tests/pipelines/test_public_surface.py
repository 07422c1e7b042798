"""What users rely on by name, and what must not be imported on the way to it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import servegraph
from servegraph_pipelines import cli

ROOT = Path(__file__).parents[2]
HEAVY = ("tensorflow", "keras", "kfp", "google.cloud.storage", "google.cloud.aiplatform", "numpy")


def imported_by(statement: str) -> set[str]:
    """Return which of the heavy modules a fresh interpreter has after the statement."""
    script = f"import sys\n{statement}\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_public_components():
    import servegraph.components

    assert servegraph.components.__all__ == [
        "check_data",
        "choose_machine",
        "deploy_version",
        "digest_data",
        "evaluate",
        "export_serving_graph",
        "inspect_graph",
        "live_version",
        "measure",
        "optimize",
        "record_training",
        "train",
    ]


def test_public_verbs():
    assert list(cli.VERBS) == [
        "run",
        "compile",
        "submit",
        "train",
        "why",
        "schedule",
        "export",
        "inspect",
        "optimize",
        "measure",
        "choose",
        "explain",
        "package",
        "deploy",
        "versions",
        "rollback",
        "undeploy",
        "serve",
        "schema",
    ]
    for verb in cli.VERBS:
        assert cli.app.get_command(None, verb).name == verb


def test_the_version_is_in_one_place():
    from servegraph import _image

    assert servegraph.__version__ in _image.SLIM


@pytest.mark.parametrize(
    "statement",
    [
        "import servegraph",
        "import servegraph_pipelines.cli",
        "import servegraph.inspect_graph.inspect, servegraph.savedmodel.bundle_reader",
        "import servegraph.machines.choose",
        "import servegraph.deploy_version.deploy, servegraph.deploy_version.targets.local",
        "import servegraph.storage",
    ],
)
def test_light_modules_stay_light(statement):
    assert imported_by(statement) == set()


@pytest.mark.parametrize(
    "verb", ["inspect", "choose", "deploy", "versions", "serve", "run", "optimize", "submit", "package", "explain"]
)
def test_help_imports_nothing_heavy(verb):
    statement = (
        "import contextlib, io\nfrom servegraph_pipelines.cli import app\n"
        f"with contextlib.redirect_stdout(io.StringIO()): app.main(['{verb}', '--help'], standalone_mode=False)"
    )
    assert imported_by(statement) == set()


def test_the_wheel_has_two_top_level_names(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"servegraph", "servegraph_pipelines"}
    for wanted in (
        "servegraph/py.typed",
        "servegraph_pipelines/py.typed",
        "servegraph/data/census/census.csv.xz",
        "servegraph/data/census/ATTRIBUTION.md",
        "servegraph/machines/catalogue.yaml",
        "servegraph/train/component.yaml",
        "servegraph/pages/frame.html.jinja",
        "servegraph_pipelines/run_report.html.jinja",
        "servegraph_pipelines/train_and_deploy.yaml",
    ):
        assert wanted in names


def test_no_lock_file_names_a_registry():
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in lock.read_text(), lock
