"""Steps taken from earlier runs on this machine, by content, and why one was not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import servegraph
from servegraph.errors import InputError
from servegraph_pipelines import step_keys
from servegraph_pipelines.step_cache import StepCache
from servegraph_pipelines.step_keys import local_runs
from servegraph_pipelines.why import why_here

TRAIN = yaml.safe_load((Path(servegraph.__file__).parent / "train/component.yaml").read_text())
SOURCE = TRAIN["deploymentSpec"]["executors"]["exec-train"]["container"]["command"][-1]
MODEL = Path(__file__).parents[2] / "real_models/keras_dense"
LOOK = """
from kfp import dsl
from servegraph.components import inspect_graph

@dsl.pipeline(name="look")
def look(model_uri: str, platform: str = ""):
    found = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model)
    inspect_graph(model=found.output, platform=platform)
"""


class Steps:
    """Runs of one step, as kfp.local would start it."""

    def __init__(self, root: Path) -> None:
        self.root, self.count, self.executed = root, 0, 0
        self.data = root / "data.csv"
        self.data.write_text("1,2\n")
        self.model = root / "model"
        self.model.mkdir()
        (self.model / "weights").write_text("w")

    def command(self, folder: Path, source: str = SOURCE, **parameters: Any) -> list[str]:
        values = {"data": str(self.data), "trainer": "servegraph.train.wide_and_deep:train", "seed": 1, **parameters}
        artifact = {"name": "model", "uri": str(self.model), "metadata": {"size": 1}}
        given = {
            "inputs": {"parameterValues": values, "artifacts": {"model": {"artifacts": [artifact]}}},
            "outputs": {"outputFile": str(folder / "executor_output.json")},
        }
        return ["sh", "-ec", "x", source, "--executor_input", json.dumps(given), "--function_to_execute", "train"]

    def run(self, *, takes: bool = True, code: str = "image-1", exit_code: int = 0, **given: Any) -> Path:
        self.count += 1
        folder = self.root / f"flow-2026-01-0{self.count}-00-00-00-000000/train"

        def execute() -> int:
            self.executed += 1
            (folder / "out").mkdir(parents=True)
            (folder / "out/file").write_text("result")
            record = {"artifacts": {"out": {"artifacts": [{"uri": str(folder / "out")}]}}}
            (folder / "executor_output.json").write_text(json.dumps(record))
            return exit_code

        cache = StepCache(self.root, takes=takes)
        assert cache.run(self.command(folder, **given), code, execute) == exit_code
        return folder


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    step_keys._file_digest.cache_clear()
    step_keys._content.cache_clear()
    return Steps(tmp_path)


def forget() -> None:
    """What a new run does: digests are kept for one process only."""
    step_keys._file_digest.cache_clear()
    step_keys._content.cache_clear()


def test_the_same_step_is_taken_with_paths_of_its_own(steps: Steps) -> None:
    steps.run()
    taken = steps.run()
    assert steps.executed == 1
    assert (taken / "out/file").read_text() == "result"
    assert json.loads((taken / "executor_output.json").read_text())["artifacts"]["out"]["artifacts"] == [
        {"uri": str(taken / "out")}
    ]
    assert steps.run() != taken
    assert steps.executed == 1


def test_runs_that_were_moved_are_taken_with_paths_of_the_new_place(steps: Steps) -> None:
    steps.root /= "runs"
    steps.run()
    steps.root = steps.root.rename(steps.root.with_name("moved"))
    for _ in range(2):
        taken = steps.run()
        record = json.loads((taken / "executor_output.json").read_text())
        assert record["artifacts"]["out"]["artifacts"] == [{"uri": str(taken / "out")}]
    assert steps.executed == 1


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("")])
def test_what_lost_a_file_is_not_taken(steps: Steps, damage: Callable[[Path], None]) -> None:
    whole, damaged = steps.run(), steps.run(takes=False)
    damage(damaged / "out/file")
    taken = steps.run()
    assert (steps.executed, (taken / "out/file").read_text()) == (2, "result")
    damage(whole / "out/file")
    shutil.rmtree(taken)
    steps.run()
    assert steps.executed == 3


def test_the_same_content_elsewhere_is_the_same(steps: Steps) -> None:
    steps.run()
    other = shutil.copytree(steps.model, steps.root / "copied")
    steps.model = Path(other)
    steps.run()
    assert steps.executed == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.data.write_text("1,3\n"), "content of data"),
        (lambda s: (s.model / "weights").write_text("v"), "content of model"),
        (lambda s: (s.model / "assets").write_text(""), "content of model"),
    ],
)
def test_other_content_is_another_step(steps: Steps, change: Any, reason: str) -> None:
    before = steps.run()
    change(steps)
    forget()
    now = steps.run()
    assert steps.executed == 2
    assert [found.what for found in why_here("train", before.parent, now.parent)] == [reason]


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"seed": 2}, "input seed"), ({"code": "image-2"}, "code that ran"), ({"source": "other"}, "component")],
)
def test_another_image_component_or_parameter_is_another_step(steps: Steps, given: dict[str, Any], reason: str) -> None:
    before = steps.run()
    now = steps.run(**given)
    assert steps.executed == 2
    assert [found.what for found in why_here("train", before.parent, now.parent)] == [reason]


@pytest.mark.parametrize(
    "given",
    [
        {"trainer": "own.module:train"},  # its imports are not known
        {"checkpoint_dir": "/somewhere"},  # which it goes on from
        {"data": "gs://bucket/data.csv"},  # not read
        {"source": "def other_peoples_component(): pass"},
        {"takes": False},
    ],
)
def test_what_is_no_function_of_its_key_runs_every_time(steps: Steps, given: dict[str, Any]) -> None:
    steps.run(**given)
    steps.run(**given)
    assert steps.executed == 2


def test_a_failed_step_and_one_whose_outputs_are_gone_are_not_taken(steps: Steps) -> None:
    failed = steps.run(exit_code=1)
    first = steps.run()
    assert steps.executed == 2
    shutil.rmtree(first / "out")
    steps.run()
    assert steps.executed == 3
    with pytest.raises(InputError) as caught:
        why_here("train", failed.parent, first.parent)
    assert caught.value.code == "UNKNOWN_STEP"


def test_a_step_that_there_is_not_is_said_before_the_lack_of_an_earlier_run(steps: Steps) -> None:
    run = steps.run().parent
    with pytest.raises(InputError) as caught:
        local_runs(run, "trian")
    assert caught.value.code == "UNKNOWN_STEP"
    assert "Did you mean train?" in caught.value.fix
    with pytest.raises(InputError) as caught:
        local_runs(run, "train")
    assert caught.value.code == "NO_RUN_BEFORE"


def test_the_producer_of_what_changed_is_asked_as_well(tmp_path: Path) -> None:
    def written(run: str, seed: int, digest: str) -> Path:
        for step, parameters, artifacts in (
            ("train", {"seed": seed}, {}),
            ("optimize", {}, {"model": {"digest": digest, "producer": "train"}}),
        ):
            folder = tmp_path / run / step
            folder.mkdir(parents=True)
            key = {"code": "c", "command": "x", "parameters": parameters, "files": {}, "artifacts": artifacts}
            (folder / step_keys.FILE).write_text(json.dumps(key))
        return tmp_path / run

    lines = [str(r) for r in why_here("optimize", written("a", 1, "sha256:0a"), written("b", 2, "sha256:0b"))]
    assert lines == ["optimize: content of model: 0a → 0b", "train: input seed: 1 → 2"]


def test_a_run_takes_what_is_there_and_why_says_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text(LOOK)
    model = Path(shutil.copytree(MODEL, tmp_path / "model"))
    start = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()"]

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*start, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True)

    def run() -> str:
        given = ["--pipeline", "look:look", "--output-dir", "out", "--param", f"model_uri={model}", "--json"]
        done = call("run", "--cache", *given)
        assert done.returncode == 0, done.stderr
        (step,) = json.loads(done.stdout)["steps"]
        return str(step["status"])

    assert run() == "succeeded"
    missing = call("why", "out", "inspect-graph")
    assert (missing.returncode, "NO_RUN_BEFORE" in missing.stderr) == (2, True)
    assert run() == "cached"
    assert "nothing differs" in call("why", "out", "inspect-graph").stdout
    (model / "assets").mkdir(exist_ok=True)
    (model / "assets/new.txt").write_text("new")
    assert run() == "succeeded"
    why = json.loads(call("why", "out", "inspect-graph", "--json").stdout)
    assert [row["what"] for row in why["reasons"]] == ["content of model"]
    assert call("why", "nowhere", "inspect-graph").returncode == 2
