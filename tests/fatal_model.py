"""A model that ends every process that asks it."""

from pathlib import Path

import numpy as np
import tensorflow as tf


class Fatal(tf.Module):
    """TensorFlow ends the process that computes a convolution of a matrix; that it is one turns out there."""

    def __init__(self):
        self.sizes, self.rank = tf.Variable([4, 4]), tf.Variable(2)
        self.kernel = tf.Variable(np.ones((3, 3, 4, 8), np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x):
        matrix = tf.reshape(tf.fill([16], 1.5), self.sizes[: self.rank])
        made = tf.raw_ops.Conv2D(input=matrix, filter=self.kernel, strides=[1, 1, 1, 1], padding="SAME")
        return {"y": x + tf.reduce_sum(made)}


def write_fatal_model(path: Path) -> None:
    model = Fatal()
    tf.saved_model.save(model, str(path), signatures=model.serve)
