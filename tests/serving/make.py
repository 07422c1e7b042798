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


def save_examples(directory: Path) -> None:
    """As TF Serving's half_plus_three: half of x plus three, from serialized tf.Examples, to classify and to regress."""
    tf1 = tf.compat.v1
    names = tf1.saved_model.signature_constants
    with tf.Graph().as_default(), tf1.Session() as session:
        serialized = tf1.placeholder(tf.string, [None], name="tf_example")
        features = {"x": tf.io.FixedLenFeature([1], tf.float32), "x2": tf.io.FixedLenFeature([1], tf.float32, 0.0)}
        x = tf.io.parse_example(serialized, features)
        a = tf1.get_variable("a", initializer=0.5)
        y = a * x["x"] + 3.0 + x["x2"]
        labels = tf.tile([["low", "high"]], [tf.shape(y)[0], 1])
        scores = tf.concat([-y, y], 1)
        session.run(a.initializer)
        build = tf1.saved_model.build_signature_def
        info = tf1.saved_model.build_tensor_info

        def signature(method: str, **outputs: tf.Tensor):
            tensors = {name: info(tensor) for name, tensor in outputs.items()}
            return build({"inputs": info(serialized)}, tensors, method)

        builder = tf1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                names.DEFAULT_SERVING_SIGNATURE_DEF_KEY: signature(
                    names.CLASSIFY_METHOD_NAME, classes=labels, scores=scores
                ),
                "scores_only": signature(names.CLASSIFY_METHOD_NAME, scores=scores),
                "classes_only": signature(names.CLASSIFY_METHOD_NAME, classes=labels),
                "tensorflow/serving/regress": signature(names.REGRESS_METHOD_NAME, outputs=y),
                "flat": signature(names.REGRESS_METHOD_NAME, outputs=tf.squeeze(y, 1)),
                "wide": signature(names.REGRESS_METHOD_NAME, outputs=scores),
                "predict": signature(names.PREDICT_METHOD_NAME, y=y),
            },
        )
        builder.save()


def main() -> None:
    shutil.rmtree(MODELS, ignore_errors=True)
    for name, factor in (("people-1", 0.01), ("people-2", 0.02)):
        people = People(factor)
        tf.saved_model.save(people, str(MODELS / name), signatures=people.serve)
    odd = Odd()
    signatures = {name: getattr(odd, name) for name in ("reverse", "log", "positive", "swap")}
    tf.saved_model.save(odd, str(MODELS / "odd"), signatures=signatures)
    save_tf1(MODELS / "half")
    save_examples(MODELS / "examples")


if __name__ == "__main__":
    main()
