"""The default trainer on two workers and on two replicas: each in processes of their own on loopback."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from servegraph.errors import InputError
from servegraph.train.strategy import choose_strategy, is_chief

TRAIN = """
import sys
from pathlib import Path
from servegraph.train.request import TrainRequest
from servegraph.train.train import Outputs, train
path = Path(sys.argv[2])
places = Outputs(path / "model", path / "checkpoints", path / "logs", path / "samples.jsonl")
result = train(TrainRequest(data=sys.argv[1]), {"epochs": 8, "hidden_units": [8], "batch_size": 64}, places)
print("LOSS", result.evaluation.scalars["log_loss"])
"""


def table(path: Path) -> str:
    rows = "".join(f"{i % 23},{'ab'[i % 2]},{'no' if i % 23 < 11 else 'yes'}\n" for i in range(600))
    path.write_text("x,c,y\n" + rows)
    return str(path)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(data: str, out: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", TRAIN, data, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def loss_of(process: subprocess.Popen) -> float:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-3000:]
    return float(next(line for line in out.splitlines() if line.startswith("LOSS")).split()[1])


@pytest.mark.slow
def test_two_workers_learn_one_model_and_one_of_them_writes_it(tmp_path):
    data = table(tmp_path / "d.csv")
    workers = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    processes = [
        start(
            data,
            tmp_path / "out",
            TF_CONFIG=json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}}),
        )
        for i in range(2)
    ]
    losses = [loss_of(process) for process in processes]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] == pytest.approx(loss_of(start(data, tmp_path / "alone")), rel=0.3)
    assert sorted(path.name for path in (tmp_path / "out/model").iterdir()) == ["model.keras", "schema.yaml"]
    assert len(list((tmp_path / "out/checkpoints").glob("*.keras"))) == 2


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_bad_tf_config_is_refused(text):
    with pytest.raises(InputError) as caught:
        choose_strategy({"TF_CONFIG": text})
    assert caught.value.code == "BAD_TF_CONFIG"


def test_one_worker_is_no_cluster():
    config = {"cluster": {"chief": ["127.0.0.1:1"]}, "task": {"type": "chief", "index": 0}}
    strategy = choose_strategy({"TF_CONFIG": json.dumps(config)})
    assert strategy.num_replicas_in_sync == 1
    assert is_chief(strategy)
