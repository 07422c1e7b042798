"""`servegraph run --pipeline retrain`, run again and again as a schedule does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SERVEGRAPH = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()"]


def table(path: Path, rows: int) -> Path:
    lines = ["length,colour,kind"]
    lines += [f"{i % 17},{'rgb'[i % 3]},{'no' if i % 17 < 8 else 'yes'}" for i in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def retrain(folder: Path, *params: str) -> dict[str, Any]:
    command = [*SERVEGRAPH, "run", "--pipeline", "retrain", "--output-dir", str(folder / "out"), "--json"]
    small = ["model_name=kinds", f"data={folder}/data.csv", 'hyperparameters={"epochs": 1, "hidden_units": [4]}']
    command += [text for param in (*small, *params) for text in ("--param", param)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def status_of(document: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for step in document["steps"]}


@pytest.mark.slow
def test_only_new_data_is_trained_on_and_only_a_better_model_deployed(tmp_path):
    table(tmp_path / "data.csv", 200)
    first = retrain(tmp_path)
    assert first["evaluation"]["verdict"] == "blessed"
    assert first["evaluation"]["live"] is None
    assert first["deployed"]["outcome"] == "created"

    again = retrain(tmp_path)
    assert status_of(again)["train"] == "skipped"
    assert status_of(again)["check-data"] == "succeeded"
    assert again["deployed"] == {}

    table(tmp_path / "data.csv", 210)
    refused = retrain(tmp_path, "min_metric=1.1", "warm_start=true")
    assert refused["evaluation"]["verdict"] == "refused"
    assert refused["evaluation"]["live"]["metric"]["name"] == "accuracy"
    assert "1.1 is asked for" in refused["evaluation"]["reasons"][0]
    assert status_of(refused)["deploy-version"] == "skipped"
    assert "warm start: took" in Path(refused["log"]).read_text()
    assert "hidden-0" in Path(refused["log"]).read_text()
    versions = json.loads((tmp_path / "out/history/kinds.json").read_text())
    assert versions["deployed"] is False
    assert Path(versions["model"]).is_file()  # that of the version still live

    skipped = retrain(tmp_path, "min_metric=1.1", "warm_start=true")
    assert status_of(skipped)["train"] == "skipped"
    assert skipped["skipped"] == "data and settings are those of the last training, and its model was not good enough."
    assert skipped["skipped"] in Path(skipped["report"]).read_text()
