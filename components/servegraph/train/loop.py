"""The training loop of the default trainer: one loop for one device, several GPUs and several workers.

It is written out instead of calling `fit`, because Keras 3's `fit` fails under MultiWorkerMirroredStrategy
("unsupported type (PerReplica)"), while a step of our own runs under every strategy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from servegraph.progress import Progress
from servegraph.train.contract import TrainArgs
from servegraph.train.strategy import is_chief
from servegraph.trained import checkpoints

STEPS_A_CALL = 50  # after each call Ctrl-C is heard


def fit(
    model: keras.Model, args: TrainArgs, *, epochs: int, batch_size: int, first_epoch: int, label_scale: float
) -> None:
    """Train a compiled `model` in place from `first_epoch` (0: from the start) to `epochs`; checkpoint every epoch.

    The squared error of a regression is taken in units of `label_scale`, so that small labels are learned like large
    ones; it is logged in the label's own.
    """
    run_steps = _steps_function(model, args.strategy, batch_size, label_scale)
    loss_unit = 1.0 if _is_classifier(model) else label_scale**2
    writes = is_chief(args.strategy)
    logs = tf.summary.create_file_writer(str(args.log_dir)) if writes else tf.summary.create_noop_writer()
    with (
        logs.as_default(),
        _writable(args.checkpoint_dir, writes) as directory,
        Progress("train", total=epochs, done=first_epoch) as progress,
    ):
        for epoch in range(first_epoch, epochs):
            loss = _mean_loss(run_steps, _batches(args, batch_size, epoch)) * loss_unit
            tf.summary.scalar("loss", tf.constant(loss, tf.float64), step=epoch + 1)  # inf above float32
            checkpoints.save(model, directory, epoch + 1)
            progress.advance(f"epoch {epoch + 1}/{epochs}, loss {loss:.4g}")


@contextmanager
def _writable(checkpoint_dir: Path, writes: bool) -> Iterator[Path]:
    """Yield where this worker saves: saving is a collective operation, so every worker does it, one for good."""
    if writes:
        yield checkpoint_dir
        return
    with tempfile.TemporaryDirectory(prefix="servegraph-worker-") as elsewhere:
        yield Path(elsewhere)


def _batches(args: TrainArgs, batch_size: int, epoch: int) -> Iterator[Any]:
    """Yield the epoch's batches; the order depends on seed and epoch alone, so a resumed run sees the same one."""
    dataset = args.data.dataset(batch_size, shuffle_seed=args.seed + epoch)
    if args.strategy.num_replicas_in_sync == 1:
        return iter(dataset)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return iter(args.strategy.experimental_distribute_dataset(dataset.with_options(options)))


def _mean_loss(run_steps: Any, batches: Iterator[Any]) -> float:
    """Train on all batches; return the mean of their losses."""
    total, steps, more = 0.0, 0, True
    while more:
        losses, count = run_steps(batches)
        total, steps, more = total + float(losses), steps + int(count), count == STEPS_A_CALL
    return total / steps


def _steps_function(model: keras.Model, strategy: tf.distribute.Strategy, batch_size: int, label_scale: float) -> Any:
    """Return a function that trains on the next `STEPS_A_CALL` batches of an iterator, or as many as there are.

    It returns the sum of their losses, float32 [], and their number, int32 []. The loop is in the graph: with a
    thousand columns, calling a step takes longer than the step.
    """

    def losses_of(labels: Any, outputs: Any) -> Any:
        if _is_classifier(model):
            return keras.losses.sparse_categorical_crossentropy(labels, outputs)
        return keras.losses.mean_squared_error(labels[:, None] / label_scale, outputs / label_scale)

    with strategy.scope():
        model.optimizer.build(model.trainable_variables)

    def replica_step(features: Any, labels: Any) -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = model(features, training=True)
            # Divided by the global batch: the replicas' gradients are summed.
            loss = tf.reduce_sum(losses_of(labels, outputs)) / batch_size
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def run_steps(batches: Any) -> tuple[tf.Tensor, tf.Tensor]:
        total, steps = tf.constant(0.0), tf.constant(0)
        for batch in batches:
            losses = strategy.run(replica_step, args=batch)
            total += strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
            steps += 1
            if steps == STEPS_A_CALL:
                break
        return total, steps

    return run_steps


def _is_classifier(model: keras.Model) -> bool:
    return bool(model.output_shape[-1] > 1)
