"""The built-in Estimator: TensorFlow's canned wide-and-deep model on any schema, as Google's census sample has it.

Wide: categories, bucketed numbers and crosses. Deep: numbers as they are, categories with a vocabulary as indicators,
hashed ones embedded. Source: GoogleCloudPlatform/cloudml-samples, census/estimator/trainer/model.py. It is the
Estimator of TensorFlow 1, whose Adagrad has a learning rate of 0.05; TensorFlow 2 gave the same class one of 0.001.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from servegraph.data.schema import Column, Schema
from servegraph.errors import InputError
from servegraph.estimator.child import EstimatorArgs
from servegraph.estimator.hyperparameters import parse_built_in

SMALLEST_LAYER = 2


def make(args: EstimatorArgs) -> Any:
    """Return the classifier, or for a float32 label the regressor.

    Raises:
        InputError: no schema (code `NO_SCHEMA`), or as `parse_built_in`.
    """
    if args.schema is None:
        raise InputError(
            "The built-in Estimator needs the schema of its data.",
            code="NO_SCHEMA",
            fix="Give the schema of the data that it is trained on: --schema, or the parameter schema.",
        )
    chosen = parse_built_in(args.hyperparameters)
    wide, deep = _columns(args.schema, chosen["embedding_size"])
    settings: dict[str, Any] = {
        "linear_feature_columns": wide,
        "dnn_feature_columns": deep,
        "dnn_hidden_units": _layers(chosen),
        "config": tf.estimator.RunConfig(
            model_dir=args.model_dir, tf_random_seed=args.seed, keep_checkpoint_max=1, save_checkpoints_secs=600
        ),
    }
    if not args.classes:
        return tf.compat.v1.estimator.DNNLinearCombinedRegressor(**settings)
    return tf.compat.v1.estimator.DNNLinearCombinedClassifier(
        n_classes=len(args.classes), label_vocabulary=list(args.classes), **settings
    )


def _layers(chosen: Mapping[str, Any]) -> list[int]:
    """Return the widths: each layer is `scale_factor` of the one before."""
    return [
        max(SMALLEST_LAYER, int(chosen["first_layer_size"] * chosen["scale_factor"] ** number))
        for number in range(chosen["num_layers"])
    ]


def _columns(schema: Schema, embedding_size: int) -> tuple[list[Any], list[Any]]:
    column = tf.feature_column
    wide, deep, crossable = [], [], {}
    for feature in schema.features:
        if feature.categorical:
            category = _category(feature)
            wide.append(category)
            crossable[feature.name] = feature.input_name
            embedded = feature.hash_buckets is not None
            deep.append(
                column.embedding_column(category, embedding_size) if embedded else column.indicator_column(category)
            )
        else:
            number = column.numeric_column(feature.input_name)
            deep.append(number)
            if feature.buckets:
                crossable[feature.name] = column.bucketized_column(number, list(feature.buckets))
                wide.append(crossable[feature.name])
    for cross in schema.crosses:
        parts = [crossable.get(name) for name in cross.columns]
        if None in parts:
            raise InputError(
                f"The cross {list(cross.columns)} uses a number without buckets.",
                code="BAD_SCHEMA",
                fix="Give the column `buckets`, or take it out of the cross.",
            )
        wide.append(column.crossed_column(parts, cross.hash_buckets))
    return wide, deep


def _category(feature: Column) -> Any:
    if feature.hash_buckets:
        dtype = tf.string if feature.dtype == "string" else tf.int64
        return tf.feature_column.categorical_column_with_hash_bucket(
            feature.input_name, feature.hash_buckets, dtype=dtype
        )
    words: list[Any] = list(feature.vocabulary or ())
    if feature.dtype != "string":
        words = [int(word) for word in words]
    return tf.feature_column.categorical_column_with_vocabulary_list(feature.input_name, words)
