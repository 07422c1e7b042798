"""Without the package of an extra a verb says which extra brings it, before it does anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

from servegraph.extras import EXTRAS, of_extra

MODEL = str(Path(__file__).parents[2] / "real_models/keras_dense")
# What starts the command line where modules are not installed.
START = """
import importlib.util, sys

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {missing!r} else found(name, package)
sys.meta_path.insert(0, Missing)
from servegraph_pipelines.cli import main
main()
"""
ROUTINE = """
class Echo:
    def load(self, uri): pass
    def preprocess(self, x): return x
    def predict(self, x): return x
    def postprocess(self, x): return x
"""


def servegraph(place: Path, missing: set[str], *arguments: str) -> tuple[int, Any]:
    """Return the exit code and the error of a verb in `place`, where the modules `missing` are not installed."""
    (place / "start.py").write_text(START.format(missing=missing))
    done = subprocess.run(
        [sys.executable, place / "start.py", *arguments, "--json"], capture_output=True, text=True, cwd=place
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)["error"]


@pytest.mark.parametrize(
    ("missing", "extra", "arguments"),
    [
        ("kfp", "train", ["run"]),
        ("tensorflow", "train", ["run"]),
        ("kfp", "cloud", ["submit", "--engine", "kfp", "--plan"]),
        (
            "kubernetes",
            "cloud",
            ["deploy", MODEL, "--target", "kserve", "--name", "m", "--namespace", "n", "--staging", "gs://b/m"],
        ),
        ("googleapiclient", "cloud", ["explain", MODEL]),
        ("tensorflow", "serve", ["export", MODEL, "out"]),
        ("tensorflow", "serve", ["optimize", MODEL, "out"]),
        ("orjson", "serve", ["measure", MODEL]),
        ("httptools", "serve", ["package", "routine.py", MODEL, "out", "--predictor", "routine:Echo"]),
        ("hatchling", "package", ["package", "routine.py", MODEL, "out", "--predictor", "routine:Echo"]),
        ("prometheus_client", "serve", ["deploy", MODEL, "--root", "root", "--name", "m"]),
    ],
)
def test_the_extra_is_named(missing: str, extra: str, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "routine.py").write_text(ROUTINE)
    before = {"routine.py", "start.py"}
    code, error = servegraph(tmp_path, {missing}, *arguments)
    assert (code, error["code"]) == (2, "PACKAGE_MISSING")
    assert missing in error["message"] and error["fix"].startswith(f"pip install 'servegraph[{extra}]'")
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == before


def test_what_a_module_of_the_user_lacks_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text("import a_module_of_mine")
    code, error = servegraph(tmp_path, set(), "submit", "--engine", "kfp", "--plan", "--pipeline", "flow:f")
    assert (code, error["code"]) == (2, "PIPELINE_FAILED")
    assert "a_module_of_mine" in error["message"]


def test_of_several_missing_packages_the_extra_that_brings_all_is_named(tmp_path: Path) -> None:
    code, error = servegraph(tmp_path, {"kfp", "tensorflow"}, "run")
    assert (code, error["code"], error["fix"]) == (2, "PACKAGE_MISSING", "pip install 'servegraph[train]'")


def test_pip_is_needed_only_to_fetch_what_no_server_has(tmp_path: Path) -> None:
    (tmp_path / "routine.py").write_text(ROUTINE.replace("Echo", "Nothing"))
    (tmp_path / "wanted.txt").write_text("numpy==2.1.0\n")
    call = ["package", "routine.py", MODEL, "out", "--predictor", "routine:Echo", "--requirements", "wanted.txt"]
    _, error = servegraph(tmp_path, {"pip"}, *call)
    assert error["code"] == "NO_PREDICTOR"  # what comes later
    (tmp_path / "wanted.txt").write_text("numpy==2.1.0\nsomething-else==1.0\n")
    code, error = servegraph(tmp_path, {"pip"}, *call)
    assert (code, error["code"]) == (2, "PACKAGE_MISSING")
    assert "something-else==1.0" in error["message"] and "uv pip install pip" in error["fix"]


FLOW = """
from kfp import dsl

@dsl.component(install_kfp_package=False)
def greet() -> str:
    return "hello"

@dsl.pipeline
def flow():
    greet()
"""


def test_steps_that_are_processes_need_no_docker(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    (tmp_path / "without").mkdir()
    (tmp_path / "without/docker.py").write_text("raise ModuleNotFoundError('No module named docker', name='docker')")
    done = subprocess.run(
        [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()", "run", "--pipeline", "flow:flow"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "without")},  # the child that runs the steps has it too
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["a_module_of_mine", "tensorflow.a_missing_part", None])
def test_a_part_of_an_installed_package_is_a_defect(name: str | None) -> None:
    assert of_extra(ModuleNotFoundError("No module", name=name)) is None


def test_every_extra_of_the_table_is_declared() -> None:
    declared = metadata("servegraph").get_all("Provides-Extra") or []
    assert {extra for extras in EXTRAS.values() for extra in extras} <= set(declared)
