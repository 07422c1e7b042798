"""Run a trainer on a table, evaluate what it returns on held-out records, and write model and samples."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegraph import storage
from servegraph.data import census, schema_file
from servegraph.data.infer import infer
from servegraph.data.schema import Schema
from servegraph.data.table import Table, read, split
from servegraph.errors import InputError, TrainerError
from servegraph.estimator import RECORD_FILE, estimator_function
from servegraph.storage.fetch import fetch_file
from servegraph.train import metrics
from servegraph.train.contract import TrainArgs, run_trainer
from servegraph.train.identity import claim, identity_of
from servegraph.train.request import TrainRequest, require_path
from servegraph.train.strategy import choose_strategy, is_chief
from servegraph.train.vocabulary import with_vocabularies
from servegraph.trained import MODEL_FILE, SCHEMA_FILE, checkpoints
from servegraph.trained.probabilities import of_each_class
from servegraph.trained.trainer import load_trainer

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SAMPLE_ROWS = 512
FEW_ROWS = 30  # held out; of fewer, one record more or less is over three per cent of the accuracy


@dataclass(frozen=True)
class Outputs:
    """Where a training run writes; four places that never lie in one another."""

    model: Path
    checkpoints: Path
    logs: Path
    samples: Path

    @classmethod
    def at(cls, model: str, checkpoints: str, logs: str, samples: str) -> Outputs:
        """Return the outputs at these paths. Raises as `require_path`."""
        require_path(checkpoints)
        return cls(Path(model), Path(checkpoints), Path(logs), Path(samples))


@dataclass(frozen=True)
class Trained:
    """What came out: the size of the model, the evaluation, the classes (empty for a regression)."""

    size_bytes: int
    evaluation: metrics.Evaluation
    classes: tuple[str, ...]
    rows: int
    eval_rows: int
    label: str  # its key in the samples
    file: str  # what stands for the model, below its directory
    notes: tuple[str, ...]  # on what was decided about the data, where the schema was inferred, and on too few records


def train(request: TrainRequest, hyperparameters: Mapping[str, Any], outputs: Outputs) -> Trained:
    """Train, evaluate and write `model.keras`, `schema.yaml` and the samples (JSON lines of held-out records).

    In the place of `model.keras` an Estimator leaves its newest checkpoint and the record of what makes it.

    Raises:
        DataError, SchemaError, StorageError: the data cannot be used.
        InputError: the checkpoints there are of another training (code `OTHER_CHECKPOINTS`).
        TrainerError: the trainer raised, or its model does not keep the contract.
    """
    if make := estimator_function(request.trainer):
        return _train_estimator(make, request, dict(hyperparameters), outputs)
    strategy = choose_strategy(os.environ)
    if not is_chief(strategy):
        # Every worker computes, one writes: the others' files go nowhere. They read the shared checkpoints.
        with tempfile.TemporaryDirectory(prefix="servegraph-worker-") as nowhere:
            elsewhere = Outputs.at(
                f"{nowhere}/model", str(outputs.checkpoints), f"{nowhere}/logs", f"{nowhere}/samples"
            )
            return _train(request, hyperparameters, elsewhere, strategy)
    return _train(request, hyperparameters, outputs, strategy)


def _train(
    request: TrainRequest, hyperparameters: Mapping[str, Any], outputs: Outputs, strategy: tf.distribute.Strategy
) -> Trained:
    import keras

    trainer = load_trainer(request.trainer)
    schema, notes = load_schema(request)
    data, eval_data = load_data(request, schema)
    notes += _few(len(eval_data))
    described = with_classes(schema, data.classes)
    claim(outputs.checkpoints, identity_of(request, described, hyperparameters), writes=is_chief(strategy))
    if is_chief(strategy):
        write_schema(described, outputs.checkpoints)
    keras.utils.set_random_seed(request.seed)
    folder = Path(tempfile.mkdtemp(prefix="servegraph-warm-start-")) if request.warm_start else None
    args = TrainArgs(
        data=data,
        eval_data=eval_data,
        schema=schema,
        hyperparameters=hyperparameters,
        checkpoint_dir=outputs.checkpoints,
        log_dir=outputs.logs,
        seed=request.seed,
        strategy=strategy,
        warm_start=fetch_file(request.warm_start, folder) if request.warm_start and folder else None,
    )
    model = run_trainer(trainer, args, request.trainer)
    evaluation = evaluate(model, eval_data, request.trainer)
    checkpoints.save_model(model, outputs.model / MODEL_FILE)
    write_schema(described, outputs.model)
    write_samples(eval_data, outputs.samples)
    size_bytes = (outputs.model / MODEL_FILE).stat().st_size
    return Trained(size_bytes, evaluation, data.classes, len(data), len(eval_data), schema.label, MODEL_FILE, notes)


def _train_estimator(make: str, request: TrainRequest, hyperparameters: dict[str, Any], outputs: Outputs) -> Trained:
    """Train an Estimator, whose `model_dir` is the checkpoints' directory; the model is its newest checkpoint."""
    from servegraph.estimator import training

    if request.warm_start:
        raise InputError(
            "An Estimator does not start from a Keras file.",
            code="NO_WARM_START",
            fix="Leave warm_start empty.",
        )
    schema, notes = load_schema(request)
    data, eval_data = load_data(request, schema)
    notes += _few(len(eval_data))
    schema = with_classes(with_vocabularies(schema, data), data.classes)
    claim(outputs.checkpoints, identity_of(request, schema, hyperparameters), writes=True)
    write_schema(schema, outputs.checkpoints)
    trained = training.train(
        make, request.trainer, (data, eval_data), schema, {"seed": request.seed, **hyperparameters}, outputs.checkpoints
    )
    evaluation = judge(trained.answers, eval_data, request.trainer)
    write_schema(schema, outputs.model)
    size_bytes = training.keep(trained, outputs.model)
    write_samples(eval_data, outputs.samples)
    return Trained(size_bytes, evaluation, data.classes, len(data), len(eval_data), schema.label, RECORD_FILE, notes)


def load_schema(request: TrainRequest) -> tuple[Schema, tuple[str, ...]]:
    """Return the schema (the file named, the sample's own, or one inferred from the data), and notes of the last."""
    if request.schema:
        file = storage.match(request.schema)[0]
        with file.open_binary() as stream:
            return schema_file.parse(stream.read().decode("utf-8", "replace"), request.schema), ()
    if request.data == census.NAME:
        described = census.ESTIMATOR_SCHEMA if estimator_function(request.trainer) else census.SCHEMA
        return schema_file.parse(described.read_text(), "of the census sample"), ()
    inferred = infer(request.data, request.label)
    for note in inferred.notes:
        print(f"note: {note}")
    return inferred.schema, inferred.notes


def load_data(request: TrainRequest, schema: Schema) -> tuple[Table, Table]:
    """Return (training, evaluation) tables."""
    data = read(str(census.DATA) if request.data == census.NAME else request.data, schema)
    if request.eval_data:
        return data, read(request.eval_data, schema, classes=data.classes or None)
    return split(data)


def _few(eval_rows: int) -> tuple[str, ...]:
    """Return the note on metrics of too few records to say much; none where there are enough."""
    if eval_rows >= FEW_ROWS:
        return ()
    note = f"The metrics are of {eval_rows} held-out records only; give more data, or eval_data."
    print(f"note: {note}")
    return (note,)


def evaluate(model: keras.Model, table: Table, trainer: str) -> metrics.Evaluation:
    """Return the metrics of `model` on `table`.

    Raises:
        TrainerError: the outputs are not what the contract asks for (code `TRAINER_MODEL_UNFIT`).
    """
    return judge(predict(model, table), table, trainer)


def judge(outputs: NDArray[Any], table: Table, trainer: str) -> metrics.Evaluation:
    """Return the metrics of the outputs for `table`. Raises as `evaluate`."""
    if not np.isfinite(outputs).all():
        raise TrainerError(
            f"The model of trainer {trainer!r} answers NaN or infinity on held-out records.",
            code="TRAINER_DIVERGED",
            fix="Lower the learning rate, or look at the data for extreme values.",
        )
    if not table.classes:
        return metrics.regression(table.labels, outputs.reshape(len(table)))
    probabilities = of_each_class(outputs, len(table.classes))
    if probabilities is None or len(probabilities) != len(table):
        expected = [len(table), len(table.classes)]
        raise TrainerError(
            f"The model of trainer {trainer!r} returns shape {list(outputs.shape)} with values from "
            f"{outputs.min():.3g} to {outputs.max():.3g}; class probabilities {expected} are expected.",
            code="TRAINER_MODEL_UNFIT",
            fix="End the model with softmax over the classes, or with one sigmoid for two classes.",
        )
    return metrics.classification(table.labels, probabilities)


def predict(model: keras.Model, table: Table, batch_size: int = 4096) -> NDArray[Any]:
    """Return the model's outputs for the whole table, float32 [rows, …].

    Raises:
        TrainerError: the model has inputs that are no features, or not one output (code `TRAINER_MODEL_UNFIT`).
    """
    from servegraph.trained.inputs import arrange, input_names, symbolic_inputs

    inputs = symbolic_inputs(model)
    missing = [name for name in input_names(inputs) if name not in table.features]
    if missing:
        raise TrainerError(
            f"The model's inputs {missing} are not features of the schema: {list(table.features)}.",
            code="TRAINER_MODEL_UNFIT",
            fix="Name the model's inputs as the schema names its columns.",
        )
    batches = (features for features, _ in table.dataset(batch_size))
    return np.concatenate([_array(model(arrange(inputs, batch), training=False)) for batch in batches])


def _array(output: Any) -> NDArray[Any]:
    import tensorflow as tf

    if not tf.is_tensor(output):
        of = f" of {', '.join(map(repr, output))}" if isinstance(output, dict) else ""
        raise TrainerError(
            f"The model returns a {type(output).__name__}{of}, not one tensor.",
            code="TRAINER_MODEL_UNFIT",
            fix="Give the model one output: the class probabilities, or the value for a float32 label.",
        )
    return np.asarray(output, np.float32)


def with_classes(schema: Schema, classes: tuple[str, ...]) -> Schema:
    """Return the schema with the classes found."""
    columns = tuple(
        replace(column, classes=classes or None) if column.name == schema.label else column for column in schema.columns
    )
    return replace(schema, columns=columns)


def write_schema(schema: Schema, directory: Path) -> None:
    """Write the schema beside a model or checkpoints: an export needs no data."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SCHEMA_FILE).write_text(schema_file.dump(schema))


def write_samples(table: Table, path: Path) -> None:
    """Write up to `SAMPLE_ROWS` records as JSON lines, spread evenly over the table, the label among them."""
    rows = np.unique(np.linspace(0, len(table) - 1, min(SAMPLE_ROWS, len(table))).astype(int))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for record in table.take(rows).instances():
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
