"""Keras layers that a model on tabular data needs and Keras does not have."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="servegraph")
class StripText(keras.layers.Layer):  # type: ignore[misc]
    """Remove white space around every string: `" Male"` and `"Male"` become one value, inside the graph.

    Input and output: string tensors of one shape. Without it, a model that was trained on one spelling and is asked
    in the other answers from its out-of-vocabulary path, with no error.
    """

    def call(self, inputs: Any) -> tf.Tensor:
        """Strip a string tensor of any shape."""
        return tf.strings.strip(inputs)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Return the symbolic output: same shape, dtype string."""
        return keras.KerasTensor(inputs.shape, dtype="string")
