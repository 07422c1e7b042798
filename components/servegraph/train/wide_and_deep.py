"""The default trainer: a wide-and-deep Keras model on any schema, all preprocessing inside the model.

Wide: one learned weight per category, bucket and crossed category. Deep: normalised numbers and embedded categories
through dense layers (Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from servegraph.data.schema import Column, Schema
from servegraph.data.table import Table
from servegraph.errors import InputError
from servegraph.train import loop
from servegraph.train.contract import TrainArgs
from servegraph.train.hyperparameters import Hyperparameters, parse_hyperparameters
from servegraph.train.vocabulary import vocabulary
from servegraph.train.warm_start import warm_start
from servegraph.trained import checkpoints
from servegraph.trained.layers import StripText

_MANY_BINS = 2**31 - 1


def train(args: TrainArgs) -> keras.Model:
    """Train the wide-and-deep model, going on from the newest checkpoint if there is one.

    Raises:
        InputError: a hyperparameter is not known or out of range, or the checkpoint has more epochs than asked for.
    """
    chosen = parse_hyperparameters(dict(args.hyperparameters))
    batch_size = chosen.batch_of(len(args.data))
    steps = chosen.epochs * -(-len(args.data) // batch_size)
    rate = keras.optimizers.schedules.CosineDecay(chosen.learning_rate, steps)
    resumed = checkpoints.newest(args.checkpoint_dir)
    if resumed:
        first_epoch, path = resumed
        if first_epoch > chosen.epochs:
            raise InputError(
                f"{args.checkpoint_dir} holds a checkpoint of {first_epoch} epochs, more than the {chosen.epochs} "
                "asked for.",
                code="OTHER_CHECKPOINTS",
                fix=f"Ask for {first_epoch} epochs or more, or give another checkpoint_dir or output.",
            )
        model = keras.models.load_model(path)
        model.optimizer.learning_rate = rate  # of a longer training it falls more slowly
    else:
        first_epoch = 0
        model = build(args.data, chosen)
        if args.warm_start is not None:
            print(f"warm start: took {', '.join(warm_start(model, args.warm_start)) or 'nothing'}")
        model.compile(optimizer=keras.optimizers.Adam(rate))
    loop.fit(
        model,
        args,
        epochs=chosen.epochs,
        batch_size=batch_size,
        first_epoch=first_epoch,
        label_scale=_spread(args.data.labels),
    )
    return model


def build(data: Table, chosen: Hyperparameters) -> keras.Model:
    """Return the untrained model; vocabularies, means and variances are taken from `data`.

    Inputs: {input name: [batch]}, string for text, float32 or int64 for numbers.
    Output: probabilities float32 [batch, classes], or values float32 [batch, 1] for a float32 label.

    Inputs and layers share their names' space in Keras: every layer has a name of its own, with a hyphen, which no
    input can have. A later training takes weights by these names (`warm_start`).
    """
    schema, units = data.schema, len(data.classes) or 1
    inputs = {c.input_name: keras.Input(shape=(), name=c.input_name, dtype=c.dtype) for c in schema.features}
    cleaned = {
        c.name: StripText(name=f"strip-{c.input_name}")(inputs[c.input_name])
        if c.dtype == "string"
        else inputs[c.input_name]
        for c in schema.features
    }
    numbers = [column.input_name for column in schema.features if not column.categorical]
    deep = (
        [_normalized([inputs[name] for name in numbers], [data.features[name] for name in numbers])] if numbers else []
    )
    wide = []
    for column in schema.features:
        value = cleaned[column.name]
        if column.categorical or column.buckets:
            ids, count = _category(column, value, data)
            name = column.input_name
            wide.append(layers.Embedding(count, units, embeddings_initializer="zeros", name=f"wide-{name}")(ids))
            deep.append(layers.Embedding(count, min(chosen.embedding_width, count), name=f"deep-{name}")(ids))
    for number, (ids, count) in enumerate(_crosses(schema, cleaned)):
        wide.append(layers.Embedding(count, units, embeddings_initializer="zeros", name=f"wide-cross-{number}")(ids))
    x = layers.Concatenate(name="deep-parts")(deep) if len(deep) > 1 else deep[0]
    for number, width in enumerate(chosen.hidden_units):
        x = layers.Dense(width, activation="relu", name=f"hidden-{number}")(x)
        x = layers.Dropout(chosen.dropout, name=f"hidden-{number}-dropout")(x)
    logits = layers.Dense(units, name="deep-logits")(x)
    if wide:
        logits = layers.Add(name="all-logits")([logits, *wide])
    if data.classes:
        return keras.Model(inputs, layers.Softmax(name="class-probabilities")(logits))
    return keras.Model(inputs, _denormalized(logits, data.labels))


def _normalized(numbers: list[Any], values: list[Any]) -> Any:
    """Return numbers of [batch] each as one [batch, columns], normalized together: a graph has a node for each else."""
    means = [float(np.mean(column)) for column in values]
    variances = [float(np.var(column)) or 1.0 for column in values]
    return layers.Normalization(mean=means, variance=variances, name="normalized-numbers")(keras.ops.stack(numbers, -1))


def _denormalized(output: Any, labels: Any) -> Any:
    offset = float(np.mean(labels, dtype=np.float64))
    return layers.Rescaling(_spread(labels), offset, name="label-values")(output)


def _spread(labels: Any) -> float:
    """Return the standard deviation, 1 for equal labels; in float64, where no float32 is too large to be squared."""
    return float(np.std(labels, dtype=np.float64)) or 1.0


def _category(column: Column, value: Any, data: Table) -> tuple[Any, int]:
    """Return (ids [batch], number of ids) of a category or a bucketed number."""
    name = f"ids-{column.input_name}"
    if column.buckets:
        ids = layers.Discretization(bin_boundaries=list(column.buckets), name=name)
        return ids(value), len(column.buckets) + 1
    if column.hash_buckets:
        return layers.Hashing(column.hash_buckets, name=name)(value), column.hash_buckets
    words = vocabulary(column, data)
    if column.dtype == "string":
        return layers.StringLookup(vocabulary=words, name=name)(value), len(words) + 1
    return layers.IntegerLookup(vocabulary=[int(word) for word in words], name=name)(value), len(words) + 1


def _crosses(schema: Schema, cleaned: dict[str, Any]) -> list[tuple[Any, int]]:
    crosses = []
    for number, cross in enumerate(schema.crosses):
        parts = []
        layer = f"ids-cross-{number}"
        for at, name in enumerate(cross.columns):
            column, value = schema.column(name), cleaned[name]
            if column.buckets:
                buckets = list(column.buckets)
                value = layers.Discretization(bin_boundaries=buckets, name=f"{layer}-buckets-{at}")(value)
            parts.append(value)
        crossed = parts[0]
        for at, part in enumerate(parts[1:-1]):  # HashedCrossing takes exactly two; these bins are as good as exact
            crossed = layers.HashedCrossing(_MANY_BINS, name=f"{layer}-part-{at}")((crossed, part))
        ids = layers.HashedCrossing(cross.hash_buckets, name=layer)((crossed, parts[-1]))
        crosses.append((ids, cross.hash_buckets))
    return crosses
