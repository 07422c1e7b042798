"""The whole DAG with an Estimator: trained and exported under TensorFlow 2.15, all else under this TensorFlow.

It needs the environment that `servegraph` makes on first use; nothing is installed by a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from servegraph.estimator import environment
from servegraph.serve.child import ServerProcess

SERVEGRAPH = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not environment.is_ready(os.environ), reason="no environment with TensorFlow 2.15 yet"),
]
SCHEMA = """
label: kind
header: true
columns:
  length: {dtype: float32}
  colour: {dtype: string, vocabulary: [r, g, b]}
  kind: {dtype: string, classes: ["no", "yes"]}
"""


def run(folder: Path, *params: str, pipeline: str = "train-and-deploy") -> dict:
    small = [f"data={folder}/data.csv", f"schema={folder}/schema.yaml", "trainer=estimator", "model_name=kinds"]
    small += ['hyperparameters={"train_steps": 600, "first_layer_size": 8, "num_layers": 1}', *params]
    command = [*SERVEGRAPH, "run", "--pipeline", pipeline, "--output-dir", str(folder / "out"), "--json"]
    done = subprocess.run(
        [*command, *(text for param in small for text in ("--param", param))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def write(folder: Path, rows: int) -> None:
    (folder / "schema.yaml").write_text(SCHEMA)
    lines = [f"{i / 100 + 11 * (i % 2)},{'rgb'[i % 3]},{('no', 'yes')[i % 2]}" for i in range(rows)]
    (folder / "data.csv").write_text("\n".join(["length,colour,kind", *lines]) + "\n")


def test_an_estimator_is_trained_shrunk_sized_deployed_and_asked(tmp_path):
    write(tmp_path, 400)
    document = run(tmp_path, "gpu_graph=float32")
    assert [step["status"] for step in document["steps"]] == ["succeeded"] * 8
    assert document["metrics"]["accuracy"] > 0.9
    sizes = document["model_bytes"]
    assert sizes["optimized"] <= sizes["exported"]
    assert document["optimized"]["agreement"] == 1
    assert document["choice"]["machine_type"].startswith("n1-")
    assert document["choice"]["tags"] == ["serve"]
    assert document["deployed"]["outcome"] == "created"
    with ServerProcess(tmp_path / "out" / "serving") as server:
        server.wait_until_available("kinds")
        rows = [{"length": 1.0, "colour": "r"}, {"length": 15.0, "colour": "g"}]
        answer = server.post("/v1/models/kinds:predict", {"instances": rows})
    assert answer.status == 200
    assert [row["classes"][0] for row in answer.document["predictions"]] == ["no", "yes"]


def test_an_estimator_is_trained_again_on_new_data_only(tmp_path):
    write(tmp_path, 300)
    first = run(tmp_path, pipeline="retrain")
    assert first["deployed"]["outcome"] == "created"
    again = run(tmp_path, pipeline="retrain")
    assert {step["name"]: step["status"] for step in again["steps"]}["train"] == "skipped"
    assert json.loads((tmp_path / "out/history/kinds.json").read_text())["model"] == ""
