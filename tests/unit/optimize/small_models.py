"""Small models of several kinds, as Keras, TensorFlow 2 and TensorFlow 1 write them."""

import keras
import numpy as np
import tensorflow as tf

from servegraph import storage
from servegraph.savedmodel.bundle_reader import BundleReader

tf1 = tf.compat.v1


def keras_model():
    keras.utils.set_random_seed(0)
    x = keras.Input((16, 16, 3), name="image")
    h = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3)(x))
    h = keras.layers.Dropout(0.5)(keras.layers.Flatten()(h))
    model = keras.Model(x, keras.layers.Dense(4, activation="softmax")(h))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(np.random.rand(8, 16, 16, 3), np.arange(8) % 4, verbose=0)
    return model


def keras_export(path):
    keras_model().export(path, verbose=False)


def keras_saved_with_optimizer(path):
    tf.saved_model.save(keras_model(), str(path))


def text_model(path):
    words = keras.layers.TextVectorization(50, output_sequence_length=6)
    words.adapt(["alpha beta gamma", "a b alpha"])
    layers = [keras.Input((1,), dtype="string"), words, keras.layers.Embedding(50, 8)]
    layers += [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3, activation="softmax")]
    keras.Sequential(layers).export(path, verbose=False)


class Module(tf.Module):
    """Two signatures, a counter that serving changes, a mutable table, two equal weights and an unused one."""

    def __init__(self):
        super().__init__()
        self.first = tf.Variable(tf.random.stateless_normal([4, 300], [1, 2]))
        self.equal = tf.Variable(self.first)
        self.unused = tf.Variable(tf.zeros([5000]))
        self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        self.table.insert(tf.constant(["alpha", "beta"]), tf.constant([1, 2], tf.int64))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def score(self, x):
        return {"y": x @ self.first + x @ self.equal}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def lookup(self, word):
        return {"id": self.table.lookup(word)}


def module(path):
    made = Module()
    tf.saved_model.save(made, str(path), signatures={"serving_default": made.score, "lookup": made.lookup})


class Counter(tf.Module):
    def __init__(self):
        super().__init__()
        self.count = tf.Variable(0.0)
        self.weight = tf.Variable(0.0)  # equal now, and no longer after the first request

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x):
        return {"y": x * 0 + self.weight, "n": x * 0 + self.count.assign_add(1.0)}


def tf1_model(path):
    vocabulary = path.parent / "vocabulary.txt"
    vocabulary.write_text("a\nb\nalpha\nbeta\n")
    unused = path.parent / "unused.txt"
    unused.write_text("never read\n" * 500)
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        x = tf1.placeholder(tf.string, [None], name="x")
        text = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        table = tf.lookup.StaticHashTable(text, 4)
        tf1.add_to_collection(tf1.GraphKeys.ASSET_FILEPATHS, tf.constant(str(unused)))
        parts = tf1.get_variable("e", [5, 8], use_resource=False, partitioner=tf1.fixed_size_partitioner(2))
        weight = tf1.get_variable("w", [8, 3], use_resource=False)
        logits = tf.nn.embedding_lookup(parts, table.lookup(x)) @ weight
        train = tf1.train.AdamOptimizer().minimize(tf.reduce_mean(logits**2))
        session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
        session.run(train, {x: ["a", "b"]})
        signature = tf1.saved_model.predict_signature_def({"x": x}, {"p": tf.nn.softmax(logits)})
        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            main_op=tf1.tables_initializer(),
            assets_collection=tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS),
        )
        builder.save()


def dense_model(path, scale=1.0, units=5):
    keras.utils.set_random_seed(0)
    x = keras.Input((64,), name="x")
    model = keras.Model(x, keras.layers.Dense(units)(keras.layers.Dense(128, activation="relu")(x)))
    model.layers[1].set_weights([model.layers[1].get_weights()[0] * scale, np.ones(128)])
    model.export(path, verbose=False)
    return model


def stored(path):
    with BundleReader(storage.open_dir(path)) as tensors:
        return {entry.shape: entry.dtype for entry in tensors.entries.values()}
