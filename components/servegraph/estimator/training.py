"""Training an Estimator from here: the records go to the environment with TensorFlow 2.15, its answers come back."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.data import schema_file
from servegraph.data.schema import Schema
from servegraph.data.table import Table
from servegraph.estimator import MODEL_DIR, RECORD_FILE
from servegraph.estimator.call import call
from servegraph.estimator.hyperparameters import parse_training


@dataclass(frozen=True)
class TrainedEstimator:
    """The answers on the evaluation records, the newest checkpoint's prefix, and what makes the Estimator again."""

    answers: NDArray[Any]
    checkpoint: Path
    record: dict[str, Any]


def train(
    make: str,
    trainer: str,
    tables: tuple[Table, Table],
    schema: Schema,
    hyperparameters: dict[str, Any],
    model_dir: Path,
) -> TrainedEstimator:
    """Train in `model_dir` up to `train_steps` steps, going on from what is there; `tables` are (training, evaluation).

    Raises:
        InputError: a hyperparameter is not known or out of range (code `BAD_HYPERPARAMETER`).
        TrainerError: the Estimator raised.
    """
    data, eval_data = tables
    steps, batch_size, seed, rest = parse_training(hyperparameters)
    args = {
        "model_dir": str(model_dir.resolve()),
        "schema": schema_file.dump(schema),
        "classes": list(data.classes),
        "hyperparameters": rest,
        "seed": seed,
    }
    record = {"trainer": trainer, **{key: args[key] for key in ("classes", "hyperparameters", "seed")}}
    model_dir.mkdir(parents=True, exist_ok=True)
    (model_dir / RECORD_FILE).write_text(json.dumps(record))
    with tempfile.TemporaryDirectory(prefix="servegraph-records-") as directory:
        records, predictions = Path(directory, "records.npz"), Path(directory, "predictions.npy")
        np.savez(records, allow_pickle=False, **_arrays(data, eval_data))
        done = call(
            "train",
            make=make,
            args=args,
            data=str(records),
            predictions=str(predictions),
            steps=steps,
            batch_size=batch_size,
        )
        answers = np.load(predictions, allow_pickle=False)
    return TrainedEstimator(answers, Path(done["checkpoint"]), record)


def keep(trained: TrainedEstimator, out: Path) -> int:
    """Copy the newest checkpoint below `out` with the record of what makes the Estimator; return the bytes."""
    place = out / MODEL_DIR
    place.mkdir(parents=True, exist_ok=True)
    name = trained.checkpoint.name
    for file in trained.checkpoint.parent.glob(f"{name}.*"):
        if file.suffix != ".meta":  # the training graph: an export builds its own
            shutil.copyfile(file, place / file.name)
    (place / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    (out / RECORD_FILE).write_text(json.dumps(trained.record))
    return sum(file.stat().st_size for file in place.iterdir())


def _arrays(data: Table, eval_data: Table) -> dict[str, Any]:
    labels = np.array([data.classes[i] for i in data.labels]) if data.classes else data.labels
    arrays = {f"train/{name}": _storable(values) for name, values in data.features.items()}
    arrays |= {f"eval/{name}": _storable(values) for name, values in eval_data.features.items()}
    return {**arrays, "labels": labels}


def _storable(values: NDArray[Any]) -> NDArray[Any]:
    """Text as fixed-width unicode: objects would be pickled, and nothing is unpickled here."""
    return values.astype(str) if values.dtype == object else values
