"""Makes the SavedModels in this folder with the TensorFlow and Keras that are installed.

They are committed: every test of the reader uses them, and TensorFlow takes longer to import than all of those
tests to run. To make them again: python make.py [NAME…]
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
HERE = Path(__file__).parent
VOCABULARY = "vocabulary.txt"


def keras_dense(path: str) -> None:
    """Keras 3's own export: batch norm, dropout; every weight is stored twice."""
    inputs = keras.Input((4,), name="x")
    hidden = keras.layers.Dropout(0.3)(keras.layers.BatchNormalization()(keras.layers.Dense(16, "relu")(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="probabilities")(hidden))
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    model.export(path, verbose=False)


def keras_lookup(path: str) -> None:
    """Keras 3's export of a string lookup with an embedding."""
    word = keras.Input((1,), name="word", dtype="string")
    age = keras.Input((1,), name="age")
    ids = keras.layers.StringLookup(vocabulary=["a", "b", "c"])(word)
    parts = [
        keras.layers.Flatten()(keras.layers.Embedding(4, 8)(ids)),
        keras.layers.Normalization(mean=1, variance=2)(age),
    ]
    keras.Model([word, age], keras.layers.Dense(2)(keras.layers.Concatenate()(parts))).export(path, verbose=False)


def keras_saved(path: str) -> None:
    """tf.saved_model.save of a trained Keras 3 model: with optimizer, and not servable outside of Python."""
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    tf.saved_model.save(model, path)


def module(path: str) -> None:
    """A tf.Module with a variable of every kind, a table from an asset, and two signatures."""
    Path(VOCABULARY).write_text("x\ny\nz\n", encoding="utf-8")

    class Everything(tf.Module):
        def __init__(self) -> None:
            self.weights = tf.Variable(np.arange(8, dtype="f4").reshape(4, 2))
            self.brain = tf.Variable(tf.constant([1.5, -2, 0.25], tf.bfloat16))
            self.half = tf.Variable(np.ones((2, 2), "f2"))
            self.flags = tf.Variable([True, False])
            self.complex = tf.Variable([1 + 2j])
            self.words = tf.Variable(["hello", "wörld", ""])
            self.none = tf.Variable(np.zeros((0, 3), "f4"))
            self.scalar = tf.Variable(7, dtype=tf.int64)
            initializer = tf.lookup.TextFileInitializer(VOCABULARY, tf.string, -2, tf.int64, -1)
            self.table = tf.lookup.StaticHashTable(initializer, -1)

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
        def multiply(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x @ self.weights}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "key")])
        def look_up(self, key: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"id": self.table.lookup(key)}

    everything = Everything()
    signatures = {"serving_default": everything.multiply, "look_up": everything.look_up}
    tf.saved_model.save(everything, path, signatures=signatures)


def unsafe(path: str) -> None:
    """A tf.Module whose signature reads, writes and prints to files, one of them in a graph inside a string."""
    nested = tf.data.Dataset.list_files("/etc/host*", shuffle=False).map(tf.io.read_file)._as_serialized_graph()

    class Unsafe(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            tf.raw_ops.SaveV2(prefix="stolen", tensor_names=["x"], shape_and_slices=[""], tensors=[x])
            tf.print("harmless: the server's log")
            tf.print(x, output_stream="file://stolen.txt")
            dataset = tf.raw_ops.DatasetFromGraph(graph_def=tf.constant(nested.numpy()))
            hosts = tf.raw_ops.DatasetToSingleElement(dataset=dataset, output_types=[tf.string], output_shapes=[[]])
            return {"y": tf.strings.join([x, hosts[0]])}

    saved = Unsafe()
    tf.saved_model.save(saved, path, signatures=saved.serve)


def v1_adam(path: str) -> None:
    """The TF1 builder: Adam's slots, gradients, a loss, an input queue, a summary, a table with an asset."""
    _v1(path, partitions=None, train=True, tag_sets=[["serve"]])


def v1_partitioned(path: str) -> None:
    """The TF1 builder: a partitioned variable and two MetaGraphs that share it."""
    _v1(path, partitions=3, train=False, tag_sets=[["serve"], ["serve", "gpu"]])


def _v1(path: str, partitions: int | None, train: bool, tag_sets: list[list[str]]) -> None:
    Path(VOCABULARY).write_text("x\ny\nz\n", encoding="utf-8")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(1)
        x = v1.placeholder(tf.float32, [None, 20], name="x")
        ids = v1.placeholder(tf.int64, [None], name="ids")
        word = v1.placeholder(tf.string, [None], name="word")
        partitioner = v1.fixed_size_partitioner(partitions) if partitions else None
        table = v1.get_variable("embedding", [50, 16], partitioner=partitioner, use_resource=False)
        weights = v1.get_variable("weights", [36, 5], use_resource=True)
        logits = tf.matmul(tf.concat([x, v1.nn.embedding_lookup(table, ids)], 1), weights)
        probabilities = tf.nn.softmax(logits, name="probabilities")
        if train:
            label = v1.placeholder(tf.int64, [None], name="label")
            loss = v1.losses.sparse_softmax_cross_entropy(label, logits)
            v1.summary.scalar("loss", loss)
            v1.train.AdamOptimizer().minimize(loss)
            v1.train.string_input_producer(["a"])
        initializer = tf.lookup.TextFileInitializer(VOCABULARY, tf.string, -2, tf.int64, -1)
        vocabulary = tf.lookup.StaticHashTable(initializer, -1)
        session.run(v1.global_variables_initializer())
        signatures = {
            "serving_default": v1.saved_model.predict_signature_def({"x": x, "ids": ids}, {"p": probabilities}),
            "look_up": v1.saved_model.predict_signature_def({"word": word}, {"id": vocabulary.lookup(word)}),
        }
        assets = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
        builder = v1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(
            session, tag_sets[0], signatures, assets_collection=assets, main_op=v1.tables_initializer()
        )
        for tags in tag_sets[1:]:
            builder.add_meta_graph(tags, signatures, assets_collection=assets)
        builder.save()


MODELS: dict[str, Callable[[str], None]] = {
    make.__name__: make for make in (keras_dense, keras_lookup, keras_saved, module, unsafe, v1_adam, v1_partitioned)
}


def main(names: list[str]) -> None:
    """Make the named models, all without names."""
    keras.utils.set_random_seed(1)
    for name in names or MODELS:
        shutil.rmtree(name, ignore_errors=True)
        MODELS[name](name)
    Path(VOCABULARY).unlink(missing_ok=True)


if __name__ == "__main__":
    os.chdir(HERE)
    main(sys.argv[1:])
