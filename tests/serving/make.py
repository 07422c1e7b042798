"""Makes the SavedModels in `models/` with the TensorFlow that is installed: python make.py.

They are committed: TensorFlow takes longer to import and trace them than a server takes to load them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

MODELS = Path(__file__).parent / "models"


class People(tf.Module):
    """Two named inputs, two outputs; `factor` tells versions apart."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "age"), tf.TensorSpec([None], tf.string, "job")])
    def serve(self, age: tf.Tensor, job: tf.Tensor) -> dict[str, tf.Tensor]:
        yes = age * self.factor
        return {
            "probabilities": tf.stack([1.0 - yes, yes], axis=1),
            "classes": tf.where(tf.equal(tf.strings.strip(job), "clerk"), "<=50K", ">50K"),
        }


class Odd(tf.Module):
    """Signatures for what JSON makes hard: bytes, not-a-number, a refusal by the graph, exact integers."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def reverse(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"size": tf.strings.length(image_bytes), "echo_bytes": image_bytes}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def log(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.math.log(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def positive(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="x must be positive")]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int64, "n"), tf.TensorSpec([None], tf.bool, "b")])
    def swap(self, n: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"n": tf.reverse(n, [1]), "b": tf.logical_not(b)}


def save_tf1(directory: Path) -> None:
    """TF Serving's example: half of x plus two, whose signature says [?, 1] and takes any shape."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.identity(tf.compat.v1.placeholder(tf.float32, [None, 1]), name="x")
        a = tf.compat.v1.get_variable("a", initializer=0.5)
        y = a * x + 2.0
        session.run(a.initializer)
        tf.compat.v1.saved_model.simple_save(session, str(directory), {"x": x}, {"y": y})


def main() -> None:
    shutil.rmtree(MODELS, ignore_errors=True)
    for name, factor in (("people-1", 0.01), ("people-2", 0.02)):
        people = People(factor)
        tf.saved_model.save(people, str(MODELS / name), signatures=people.serve)
    odd = Odd()
    signatures = {name: getattr(odd, name) for name in ("reverse", "log", "positive", "swap")}
    tf.saved_model.save(odd, str(MODELS / "odd"), signatures=signatures)
    save_tf1(MODELS / "half")


if __name__ == "__main__":
    main()
