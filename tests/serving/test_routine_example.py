"""The worked example of the docs: what the graph answers, and what the routine around it answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from servegraph.export_serving_graph.export import export
from servegraph.serve.child import ServerProcess
from servegraph.train.request import TrainRequest
from servegraph.train.train import Outputs, train

EXAMPLE = Path(__file__).parents[2] / "docs/examples/census_routine"


def servegraph(*arguments: object) -> Any:
    script = "from servegraph_pipelines.cli import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_preprocessing_changes_the_answer(tmp_path):
    places = Outputs(*(tmp_path / name for name in ("trained", "checkpoints", "logs", "samples")))
    train(TrainRequest(), {"epochs": 1, "hidden_units": [4], "batch_size": 1024}, places)
    export(places.model, tmp_path / "census")
    packaged, root = tmp_path / "packaged", tmp_path / "root"
    options = ("--predictor", "census_routine:CensusRoutine", "--samples", EXAMPLE / "samples.jsonl")
    code, done, said = servegraph("package", EXAMPLE, tmp_path / "census", packaged, *options)
    assert code == 0, said
    assert [sample["response"]["predictions"][0].keys() for sample in done["samples"]] == [
        {"income", "probability"}
    ] * 2

    (tmp_path / "strange.jsonl").write_text('{"instances": [{"education": "none"}]}')
    again = (tmp_path / "census", tmp_path / "again", *options[:2], "--samples", tmp_path / "strange.jsonl")
    code, refused, said = servegraph("package", EXAMPLE, *again)
    assert (code, refused["error"]["code"]) == (1, "SAMPLE_FAILED")
    assert "  the server's last lines:\n" in said and "oneDNN" not in said  # one below the other, and no notices

    deploying = ("deploy", packaged, "--name", "census", "--root", root)
    code, refused, _ = servegraph(*deploying)
    assert (code, refused["error"]["code"]) == (1, "CODE_NOT_TRUSTED")
    code, deployed, said = servegraph(*deploying, "--trust-code")
    assert (code, deployed["outcome"]) == (0, "created"), said

    form = json.loads((EXAMPLE / "samples.jsonl").read_text().splitlines()[0])["instances"][0]
    full = {"capital_gain": 0, "capital_loss": 0, "hours_per_week": 40, "workclass": "?", **form, "education_num": 16}
    with ServerProcess(root, options=("--trust-code",)) as server:
        server.wait_until_available("census")
        after = server.post("/v1/models/census:predict", {"instances": [form]}).document["predictions"][0]
        strange = server.post("/v1/models/census:predict", {"instances": [{**form, "education": "none"}]})
    assert (strange.status, "There is no education 'none'" in strange.document["error"]) == (400, True)
    (tmp_path / "plain/census").mkdir(parents=True)
    (tmp_path / "plain/census/1").symlink_to(tmp_path / "census")
    with ServerProcess(tmp_path / "plain") as server:
        server.wait_until_available("census")
        rows = [full, {**full, "education": "Doctorate"}]
        before, known = server.post("/v1/models/census:predict", {"instances": rows}).document["predictions"]
    assert after == {"income": known["classes"], "probability": pytest.approx(max(known["probabilities"]), abs=1e-6)}
    assert max(before["probabilities"]) != pytest.approx(after["probability"], abs=1e-4)
