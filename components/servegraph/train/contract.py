"""What a trainer is: a function that takes `TrainArgs` and returns a Keras model.

    def train(args: TrainArgs) -> keras.Model: ...

It is named as `package.module:function`, or as a `.py` file (a path or gs://, `:function` if it is not `train`).
The model takes a dict of the schema's features by input name, each of shape [batch], and returns class probabilities
float32 [batch, classes] (or [batch, 1]: the probability of the second class); for a float32 label, values [batch, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servegraph.data.schema import Schema
from servegraph.data.table import Table
from servegraph.errors import ServegraphError, TrainerError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclass(frozen=True)
class TrainArgs:
    """Everything a trainer may use.

    `data` and `eval_data` are the records; `schema` says what they hold. Checkpoints go below `checkpoint_dir`,
    TensorBoard logs below `log_dir`; neither is ever inside the model. A trainer that finds a checkpoint there
    continues from it (`servegraph.trained.checkpoints`). Variables are made in `strategy.scope()`, which the caller
    has entered. `warm_start` is the Keras file of an earlier model to start from, if one was asked for.
    """

    data: Table
    eval_data: Table
    schema: Schema
    hyperparameters: Mapping[str, Any]
    checkpoint_dir: Path
    log_dir: Path
    seed: int
    strategy: tf.distribute.Strategy
    warm_start: Path | None = None


Trainer = Callable[[TrainArgs], "keras.Model"]


def run_trainer(trainer: Trainer, args: TrainArgs, name: str) -> keras.Model:
    """Call the trainer in the strategy's scope and return its model.

    Raises:
        TrainerError: it raised (code `TRAINER_FAILED`) or returned no Keras model (`TRAINER_RETURNED_NO_MODEL`).
    """
    import keras

    try:
        with args.strategy.scope():
            model = trainer(args)
    except ServegraphError:
        raise
    except Exception as exc:
        fix = "See the traceback above this line in the step's log."
        if isinstance(exc, AttributeError) and exc.name == "estimator":  # of a TensorFlow that has none any more
            fix = f"An Estimator runs under TensorFlow 2.15, if its name begins so: estimator:{name}."
        raise TrainerError(f"The trainer {name!r} raised {type(exc).__name__}: {exc}.", fix=fix) from exc
    if not isinstance(model, keras.Model):
        raise TrainerError(
            f"The trainer {name!r} returned {type(model).__name__}, not a keras.Model.",
            code="TRAINER_RETURNED_NO_MODEL",
            fix="End the function with `return model`.",
        )
    return model
