"""Measuring a real model, as a user does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parent / "models"


def servegraph(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_measurement_feeds_a_choice(tmp_path: Path) -> None:
    done = servegraph("measure", str(MODELS / "people-1"), "--cpus", "1", "--seconds", "0.3", "--no-tune", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cpus"] == 1
    assert found["limited_by"] in ("cgroup", "affinity+rlimit")
    assert 50e6 < found["steady_memory_bytes"] <= found["peak_memory_bytes"] < 3e9
    assert 0 < found["latency_ms"] <= found["latency_p99_ms"]
    assert found["requests_per_second"] > 1
    assert [batch["rows"] for batch in found["batches"]] == [1, 4, 16, 64]
    (tmp_path / "measured.json").write_text(done.stdout)
    chosen = servegraph(
        "choose",
        str(MODELS / "people-1"),
        "--measured",
        str(tmp_path / "measured.json"),
        "--target-rate",
        "1e6",
        "--json",
    )
    document = json.loads(chosen.stdout)
    assert document["memory_bytes"] == found["peak_memory_bytes"]
    assert document["capacity"]["replicas"] >= 1
    assert document["capacity"]["price_per_million"] > 0
    assert not [warning for warning in document["warnings"] if warning.startswith("OTHER_MODEL_MEASURED")]


def test_what_does_not_fit_says_so(tmp_path: Path) -> None:
    done = servegraph("measure", str(MODELS / "half"), "--memory", "50MB", "--seconds", "0.1", "--no-tune")
    assert done.returncode == 1
    assert "DOES_NOT_FIT" in done.stderr
    assert "Traceback" not in done.stderr
    done = servegraph("measure", str(MODELS / "half"), "--cpus", str(os.cpu_count() * 100))
    assert (done.returncode, "MACHINE_TOO_SMALL" in done.stderr) == (2, True)
    shutil.copytree(MODELS / "half", tmp_path / "broken")
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"\xff")
    done = servegraph("measure", str(tmp_path / "broken"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_samples_that_cannot_be_used_are_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    for content, code in (("", "EMPTY_SAMPLES"), ('{"age": "old"}\n', "BAD_SAMPLES"), (None, "NOT_FOUND")):
        file.unlink(missing_ok=True) if content is None else file.write_text(content)
        done = servegraph("measure", str(MODELS / "people-1"), "--samples", str(file))
        assert (done.returncode, code in done.stderr) == (2, True), done.stderr


def test_a_model_that_takes_one_row_at_a_time_is_measured_with_one(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def serve(x):
        return {"y": 2.0 * tf.ensure_shape(x, [1, 2])}

    tf.saved_model.save(tf.Module(), str(tmp_path / "one"), signatures=serve)
    done = servegraph("measure", str(tmp_path / "one"), "--seconds", "0.1", "--no-tune", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [batch["rows"] for batch in found["batches"]] == [1]
    assert any(note.startswith("4 rows at once are refused: ") for note in found["notes"])


def test_bfloat16_is_tried_where_allowed_and_rows_as_many_as_the_server_takes(tmp_path: Path) -> None:
    samples = tmp_path / "long.jsonl"
    samples.write_text(json.dumps({"age": 1.0, "job": "clerk" * 60_000}) + "\n")
    options = ("--cpus", "1", "--seconds", "0.1", "--samples", str(samples), "--bfloat16-max-diff", "0.01", "--json")
    done = servegraph("measure", str(MODELS / "people-1"), *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [batch["rows"] for batch in found["batches"]] == [1, 4, 16]
    assert any("More than 16 rows were not asked" in note for note in found["notes"])
    assert found["tried"][0]["name"] == "bfloat16"
