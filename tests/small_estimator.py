"""A small Estimator, trained under TensorFlow 2.15 on made-up data, for whoever needs one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from servegraph.train.request import TrainRequest
from servegraph.train.train import Outputs, Trained, train

SCHEMA = """
label: y
header: true
columns:
  size: {dtype: float32, default: 0.5}
  colour: {dtype: string, vocabulary: [red, blue]}
  shop: {dtype: string, hash_buckets: 10}
  note: {dtype: string, role: ignore}
  y: {dtype: string, classes: ["no", "yes"]}
crosses:
  - {columns: [colour, shop], hash_buckets: 50}
"""


def write_data(path: Path) -> None:
    """Write `data.csv` and `schema.yaml`."""
    draw = np.random.default_rng(0)
    lines = ["size,colour,shop,note,y"]
    for _ in range(400):
        size, colour = draw.normal(), draw.choice(["red", "blue"])
        lines.append(
            f"{size:.3f}, {colour}, s{draw.integers(5)},x, {'yes' if size + (colour == 'red') > 0.5 else 'no'}"
        )
    (path / "data.csv").write_text("\n".join(lines) + "\n")
    (path / "schema.yaml").write_text(SCHEMA)


def train_small(path: Path, trainer: str = "estimator", train_steps: int = 500, **hyperparameters: int) -> Trained:
    """Train on the data in `path`; `model`, `checkpoints` and `samples.jsonl` are there afterwards."""
    request = TrainRequest(data=str(path / "data.csv"), schema=str(path / "schema.yaml"), trainer=trainer)
    outputs = Outputs.at(*(str(path / name) for name in ("model", "checkpoints", "logs", "samples.jsonl")))
    settings = {"train_steps": train_steps, **({"batch_size": 40} if trainer == "estimator" else {})}
    return train(request, settings | hyperparameters, outputs)
