"""Makes the models that `inspect_speed.py` uses: python inspect_models.py DIRECTORY. Needs TensorFlow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import google_crc32c
import keras
import numpy as np
import tensorflow as tf

from servegraph.savedmodel.bundle_index import TensorEntry, encode_entry, encode_header
from servegraph.savedmodel.sstable import mask, write_table

v1 = tf.compat.v1
GB = 10**9


def small_keras(path: Path) -> None:
    """What Keras exports for a small classifier."""
    inputs = keras.Input((10,), name="x")
    hidden = keras.layers.Dense(64, "relu")(keras.layers.Dense(64, "relu")(inputs))
    keras.Model(inputs, keras.layers.Dense(3, "softmax")(hidden)).export(str(path), verbose=False)


def many_variables(path: Path) -> None:
    """A tf.Module with 5,000 variables: 70,000 nodes."""

    class Many(tf.Module):
        def __init__(self) -> None:
            self.parts = [tf.Variable(tf.ones((8,)), name=f"part_{number}") for number in range(5000)]

        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, "x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            for part in self.parts:
                x = tf.tanh(tf.nn.relu(x * part) + 1.0)
            return {"y": x}

    many = Many()
    tf.saved_model.save(many, str(path), signatures=many.serve)


def large_variables(path: Path) -> None:
    """Ten variables of 1 GB: a real graph and index, and a data file that takes no room on the disk."""
    size_bytes, count = GB, 10
    with tf.Graph().as_default() as graph:
        ids = v1.placeholder(tf.int64, [None], name="ids")
        shape = (size_bytes // 4 // 1000, 1000)
        tables = [v1.get_variable(f"table_{number}", shape) for number in range(count)]
        vectors = tf.concat([tf.gather(table, ids) for table in tables], 1, name="vectors")
        saver = v1.train.Saver(tables, sharded=True).as_saver_def()
        signature = v1.saved_model.predict_signature_def({"ids": ids}, {"vectors": vectors})
        _write_graph(path, graph, {"serving_default": signature}, saver)
    _write_sparse_variables(path, [f"table_{number}" for number in range(count)], shape, size_bytes)


def _write_sparse_variables(path: Path, names: list[str], shape: tuple[int, int], size_bytes: int) -> None:
    crc, zeros = 0, bytes(1 << 22)
    for start in range(0, size_bytes, len(zeros)):
        crc = google_crc32c.extend(crc, zeros[: size_bytes - start])
    rows = [(b"", encode_header(1))]
    for position, name in enumerate(names):
        entry = TensorEntry(name, "float32", shape, 0, position * size_bytes, size_bytes, mask(crc))
        rows.append((name.encode(), encode_entry(entry)))
    (path / "variables").mkdir()
    (path / "variables/variables.index").write_bytes(b"".join(write_table(iter(sorted(rows)))))
    with (path / "variables/variables.data-00000-of-00001").open("wb") as file:
        file.truncate(size_bytes * len(names))


def frozen(path: Path) -> None:
    """200 MB of weights as constants of the graph."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 1000], name="x")
        y = x
        for _ in range(50):
            y = tf.nn.relu(tf.matmul(y, tf.constant(np.random.default_rng(1).random((1000, 1000), "f4"))))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        _write_graph(path, graph, {"serving_default": signature}, None)


def million_nodes(path: Path) -> None:
    """A million operations in the function that the signature calls, where TF2 has them."""
    from tensorflow.core.protobuf import saved_model_pb2

    class Small(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": tf.nn.relu(x)}

    small = Small()
    tf.saved_model.save(small, str(path), signatures=small.serve)
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((path / "saved_model.pb").read_bytes())
    functions = saved_model.meta_graphs[0].graph_def.library.function
    body = next(function for function in functions if any(node.op == "Relu" for node in function.node_def))
    template = next(node for node in body.node_def if node.op == "Relu")
    last = template.input[0]
    for number in range(1_000_000):  # tracing as many would take minutes
        node = body.node_def.add()
        node.CopyFrom(template)
        node.name, node.input[0] = f"block_{number // 100}/layer_{number % 100}/relu", last
        last = f"{node.name}:activations:0"
    template.input[0] = last
    (path / "saved_model.pb").write_bytes(saved_model.SerializeToString())


def _write_graph(path: Path, graph: tf.Graph, signatures: dict, saver: object | None) -> None:
    _write_definition(path, graph.as_graph_def(), signatures, saver)


def _write_definition(path: Path, definition: object, signatures: dict, saver: object | None) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = saved_model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    meta_graph.meta_info_def.tensorflow_version = tf.__version__
    meta_graph.graph_def.CopyFrom(definition)
    for name, signature in signatures.items():
        meta_graph.signature_def[name].CopyFrom(signature)
    if saver is not None:
        meta_graph.saver_def.CopyFrom(saver)
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(saved_model.SerializeToString())


MODELS: dict[str, Callable[[Path], None]] = {
    make.__name__: make for make in (small_keras, large_variables, many_variables, frozen, million_nodes)
}


def main(directory: Path, names: list[str]) -> None:
    """Make the models that are not there yet."""
    for name in names or MODELS:
        if not (directory / name / "saved_model.pb").exists():
            MODELS[name](directory / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
