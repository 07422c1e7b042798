"""Small models that are trained here, in seconds, on data whose held-out part says what a change costs."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from optimize_models import SEED, About, Make, Sources, write_samples

layers = keras.layers
v1 = tf.compat.v1
Data = tuple[NDArray, NDArray, NDArray, NDArray]  # x, y to train on; x, y held out
WORDS = 12_000  # the vocabulary of the TF1 model
MOMENTUM = 0.9  # of batch norms: training takes a few hundred steps, and the statistics must follow


def digits_data(sources: Sources) -> Data:
    """1,797 handwritten digits of 8 by 8: from the data folder, or from scikit-learn's package."""
    from optimize_real import unpack

    if sources.data is not None and (sources.data / "digits/digits.csv.gz").exists():
        file = sources.data / "digits/digits.csv.gz"
    else:
        file = unpack("scikit-learn==1.7.2", sources) / "sklearn/datasets/data/digits.csv.gz"
    with gzip.open(file) as stream:
        table = np.loadtxt(stream, delimiter=",", dtype="f4")
    table = np.random.default_rng(SEED).permutation(table)
    x, y = table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1].astype("i4")
    return x[:1300], y[:1300], x[1300:], y[1300:]


def mnist_data(sources: Sources) -> Data:
    """10,000 digits of 28 by 28 to train on, 2,000 of the official test set held out."""

    def read(name: str, header: int) -> NDArray:
        return np.frombuffer(gzip.open(sources.file(f"mnist/{name}-ubyte.gz")).read(), "u1")[header:]

    x = read("cazala-10k-images-idx3", 16).reshape(-1, 28, 28, 1)
    test = read("t10k-images-idx3", 16).reshape(-1, 28, 28, 1)[:2000]
    labels = [read(f"{name}-labels-idx1", 8).astype("i4") for name in ("cazala-10k", "t10k")]
    return x.astype("f4"), labels[0], test.astype("f4"), labels[1][:2000]


def sms_data(sources: Sources) -> Data:
    """5,574 short messages, spam or not; a fifth held out."""
    rows = [line.split("\t", 1) for line in sources.file("sms-spam/SMSSpamCollection").read_text("utf-8").splitlines()]
    order = np.random.default_rng(SEED).permutation(len(rows))
    x = np.array([rows[i][1] for i in order], object)
    y = np.array([rows[i][0] == "spam" for i in order], "i4")
    return x[:-1115], y[:-1115], x[-1115:], y[-1115:]


def _fitted(model: keras.Model, data: Data, epochs: int, rate: float = 1e-3) -> keras.Model:
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    x = tf.constant(data[0]) if data[0].dtype == object else data[0]
    model.fit(x, data[1], epochs=epochs, batch_size=64, verbose=0)
    return model


def _keras(name: str, data: Callable[[Sources], Data], build: Callable[[Data], keras.Model], epochs: int) -> Make:
    """A Keras model, trained and exported as Keras does it."""

    def make(folder: Path, sources: Sources) -> About:
        keras.utils.set_random_seed(SEED)
        parts = data(sources)
        model = _fitted(build(parts), parts, epochs)
        model.export(str(folder / "model"), verbose=False)
        write_samples(folder, {model.inputs[0].name: parts[2]}, parts[3].tolist())
        return About()

    make.__name__ = name
    return make


def _conv_block(x: keras.KerasTensor, filters: int, strides: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(x))


def digits_net(_: Data) -> keras.Model:
    """Convolutions with batch norm, 0.7 million weights."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = _conv_block(layers.Rescaling(1 / 16)(inputs), 64)
    x = _conv_block(_conv_block(x, 128, strides=2), 256, strides=2)
    x = layers.Dense(256, "relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, "softmax", name="probabilities")(x))


def mnist_net(_: Data) -> keras.Model:
    """Convolutions, some depthwise, with batch norm, 1.7 million weights."""
    inputs = keras.Input((28, 28, 1), name="image")
    x = _conv_block(layers.Rescaling(1 / 255)(inputs), 32, strides=2)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(x))
    x = _conv_block(x, 64, strides=2)
    x = layers.Dense(512, "relu")(layers.Flatten()(x))
    x = layers.BatchNormalization(momentum=MOMENTUM)(x)
    return keras.Model(inputs, layers.Dense(10, "softmax", name="probabilities")(x))


def digits_mobilenet(_: Data) -> keras.Model:
    """MobileNetV2 at 64 by 64."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Rescaling(1 / 8, offset=-1)(layers.UpSampling2D(8, interpolation="bilinear")(inputs))
    net = keras.applications.MobileNetV2((64, 64, 3), weights=None, include_top=False, pooling="avg")
    for layer in net.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
    x = net(layers.Concatenate()([x, x, x]))
    return keras.Model(inputs, layers.Dense(10, "softmax", name="probabilities")(x))


def _words(data: Data, length: int | None, ngrams: int | None = None) -> layers.TextVectorization:
    words = layers.TextVectorization(max_tokens=50_000, ngrams=ngrams, output_sequence_length=length)
    words.adapt(tf.constant(data[0]))
    return words


def text_net(data: Data) -> keras.Model:
    """A vocabulary of words and pairs, and an embedding of all of them that is nearly the whole model."""
    words = _words(data, 64, ngrams=2)
    inputs = keras.Input((), dtype="string", name="text")
    x = layers.Embedding(words.vocabulary_size(), 128)(words(inputs))
    x = layers.Dense(64, "relu")(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, layers.Dense(2, "softmax", name="probabilities")(x))


def transformer_net(data: Data) -> keras.Model:
    """Two blocks of attention over 32 words."""
    words = _words(data, 32)
    inputs = keras.Input((), dtype="string", name="text")
    x = layers.Embedding(words.vocabulary_size(), 64)(words(inputs))
    for _ in range(2):
        attended = layers.MultiHeadAttention(2, 32)(x, x)
        x = layers.LayerNormalization()(layers.Add()([x, attended]))
        fed = layers.Dense(64)(layers.Dense(256, "gelu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, fed]))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(2, "softmax", name="probabilities")(x))


def census(folder: Path, _: Sources) -> About:
    """The project's own wide-and-deep model of the census sample, with its own trainer and exporter."""
    from servegraph.data import census as sample
    from servegraph.data import schema_file
    from servegraph.export_serving_graph.export import export
    from servegraph.train.request import TrainRequest
    from servegraph.train.train import Outputs, train

    with tempfile.TemporaryDirectory() as work:
        outputs = Outputs.at(*(f"{work}/{name}" for name in ("model", "checkpoints", "logs")), str(folder / "all"))
        train(TrainRequest(seed=SEED), {}, outputs)
        export(outputs.model, folder / "model")
    (folder / "all").rename(folder / "samples.jsonl")
    return About(
        output="probabilities", label=schema_file.parse(sample.SCHEMA.read_text(), "of the census sample").label
    )


def module(folder: Path, sources: Sources) -> About:
    """A tf.Module with two signatures that share weights."""
    keras.utils.set_random_seed(SEED)
    x, y, test_x, test_y = digits_data(sources)

    class Net(tf.Module):
        def __init__(self) -> None:
            sizes = (64, 512, 512, 10)
            random = np.random.default_rng(SEED)
            self.weights = [
                tf.Variable((random.normal(size=(a, b)) * np.sqrt(2 / a)).astype("f4")) for a, b in pairwise(sizes)
            ]
            self.biases = [tf.Variable(tf.zeros(size)) for size in sizes[1:]]

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, "image")])
        def embed(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            x = tf.reshape(image, [-1, 64]) / 16
            for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
                x = tf.nn.relu(x @ weight + bias)
            return {"embedding": x}

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, "image")])
        def classify(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            logits = self.embed(image)["embedding"] @ self.weights[-1] + self.biases[-1]
            return {"probabilities": tf.nn.softmax(logits)}

    net, optimizer = Net(), keras.optimizers.Adam()
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(50).repeat(8)
    for image, label in batches:
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(label, net.classify(image)["probabilities"])
        optimizer.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)
    signatures = {"serving_default": net.classify, "embed": net.embed}
    tf.saved_model.save(net, str(folder / "model"), signatures=signatures)
    write_samples(folder, {"image": test_x}, test_y.tolist())
    return About()


def tf1_builder(folder: Path, sources: Sources) -> About:
    """The TF1 builder: Adam's slots, gradients, dropout by `is_training`, partitioned and plain variables, a table."""
    x, y, test_x, test_y = sms_data(sources)
    words = sorted({word for text in x for word in text.lower().split()})[:WORDS]
    vocabulary = folder / "words.txt"
    vocabulary.write_text("\n".join(words), "utf-8")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(SEED)
        text = v1.placeholder(tf.string, [None], name="text")
        is_training = v1.placeholder_with_default(False, [], name="is_training")
        label = v1.placeholder(tf.int64, [None], name="label")
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        table = tf.lookup.StaticVocabularyTable(initializer, 100)
        ids = table.lookup(tf.strings.split(tf.strings.lower(text)).to_sparse())
        partitioner = v1.fixed_size_partitioner(3)
        embedding = v1.get_variable("embedding", [len(words) + 100, 128], partitioner=partitioner, use_resource=False)
        hidden = v1.nn.embedding_lookup_sparse(embedding, ids, None, combiner="mean")
        for size in (256, 128):
            weights = v1.get_variable(f"weights_{size}", [hidden.shape[1], size], use_resource=size == 128)
            bias = v1.get_variable(f"bias_{size}", [size], use_resource=False, initializer=v1.zeros_initializer())
            hidden = tf.nn.relu(tf.matmul(hidden, weights) + bias)
        hidden = tf.cond(is_training, lambda: tf.nn.dropout(hidden, 0.3, seed=SEED), lambda: hidden)
        logits = tf.matmul(hidden, v1.get_variable("output", [128, 2], use_resource=False))
        probabilities = tf.nn.softmax(logits, name="probabilities")
        loss = v1.losses.sparse_softmax_cross_entropy(label, logits)
        v1.summary.scalar("loss", loss)
        step = v1.train.AdamOptimizer(2e-3).minimize(loss, v1.train.get_or_create_global_step())
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        for start in [*range(0, len(x), 64)] * 4:
            batch = {text: x[start : start + 64], label: y[start : start + 64], is_training: True}
            session.run(step, batch)
        signature = v1.saved_model.predict_signature_def({"text": text}, {"probabilities": probabilities})
        builder = v1.saved_model.Builder(str(folder / "model"))
        assets = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            assets_collection=assets,
            main_op=v1.tables_initializer(),
        )
        builder.save()
    write_samples(folder, {"text": test_x}, test_y.tolist())
    return About()


MODELS: dict[str, Make] = {
    "digits": _keras("digits", digits_data, digits_net, 8),
    "digits-mobilenetv2": _keras("digits_mobilenetv2", digits_data, digits_mobilenet, 6),
    "mnist": _keras("mnist", mnist_data, mnist_net, 3),
    "sms-text": _keras("sms_text", sms_data, text_net, 6),
    "sms-transformer": _keras("sms_transformer", sms_data, transformer_net, 2),
    "census": census,
    "tf1-builder": tf1_builder,
    "module": module,
}
