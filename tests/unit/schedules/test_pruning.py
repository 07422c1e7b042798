"""Which runs of a schedule on this machine stay."""

from __future__ import annotations

import json
from pathlib import Path

from servegraph_pipelines.schedules.pruning import KEPT_RUNS, prune


def make_run(root: Path, day: int, target: str = "", resource: str = "", pipeline: str = "retrain") -> Path:
    """Make the folder of a run as kfp.local leaves it, of one that deployed or did not."""
    run = root / f"{pipeline}-2026-01-{day:02d}-03-00-00-000000"
    (run / "train").mkdir(parents=True)
    if target:
        (run / "deploy-version").mkdir()
        deployed = {"outcome": "created", "target": target, "name": "m", "resource": resource}
        (run / "deploy-version/deployment").write_text(json.dumps(deployed))
        (run / "deploy-version/executor_output.json").write_text('{"artifacts": {}}')
    return run


def left(root: Path) -> list[str]:
    return sorted(run.name[-18:-16] for run in root.iterdir())


def test_the_newest_runs_stay_whatever_their_pipeline_is_called(tmp_path: Path) -> None:
    for day in range(1, 8):
        make_run(tmp_path, day, pipeline="z" if day == 1 else "retrain" if day % 2 else "a")
    gone = prune(tmp_path)
    assert len(gone) == 7 - KEPT_RUNS
    assert left(tmp_path) == ["05", "06", "07"]
    assert prune(tmp_path) == []


def test_the_runs_of_versions_that_are_there_stay(tmp_path: Path) -> None:
    serving, root = tmp_path / "serving/m", tmp_path / "runs"
    (serving / "2").mkdir(parents=True)
    (serving / "3").mkdir()
    for day, version in ((1, 1), (2, 2), (3, 2), (4, 3)):  # version 1 was undeployed, 2 was deployed twice
        make_run(root, day, "local", str(serving / str(version)))
    for day in range(5, 9):
        make_run(root, day)
    prune(root)
    assert left(root) == ["03", "04", "06", "07", "08"]


def test_of_versions_on_a_service_the_newest_run_stays(tmp_path: Path) -> None:
    for day in (1, 2):
        make_run(tmp_path, day, "vertex", f"projects/p/models/{day}")
    for day in range(3, 7):
        make_run(tmp_path, day)
    prune(tmp_path)
    assert left(tmp_path) == ["02", "04", "05", "06"]


def test_what_is_damaged_keeps_nothing_and_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    damaged = make_run(tmp_path, 1, "local", str(tmp_path))
    (damaged / "deploy-version/deployment").write_text("{")
    for day in range(2, 5):
        make_run(tmp_path, day)
    (tmp_path / "mine").mkdir()
    assert prune(tmp_path) == [damaged]
    assert (tmp_path / "mine").is_dir()
    assert prune(tmp_path / "none") == []
