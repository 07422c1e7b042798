"""Makes the models that `optimize.py` uses: python optimize_models.py DIRECTORY [--data DATA] NAME…

Every model gets a folder: `model` (the SavedModel), `samples.jsonl` (held-out records with their label, where the
weights were trained) and `about.json`. Needs TensorFlow; each model takes seconds to a minute on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import google_crc32c
import keras
import numpy as np
import tensorflow as tf

from servegraph.savedmodel.bundle_index import TensorEntry, encode_entry, encode_header
from servegraph.savedmodel.sstable import mask, write_table

v1 = tf.compat.v1
SEED = 1


@dataclass(frozen=True)
class About:
    """How to ask the model: the signature, the output that decides, the key of the label.

    No output means the only one. `frames`: the decision is the largest mean over the second dimension. No label means
    random weights, whose agreement says nothing about accuracy.
    """

    signature: str = "serving_default"
    output: str | None = None
    label: str | None = "label"
    frames: bool = False


@dataclass(frozen=True)
class Sources:
    """Where data sets are, and where packages may be downloaded to."""

    data: Path | None
    downloads: Path

    def file(self, name: str) -> Path:
        """Return a file of the data folder; raises `Skipped`."""
        if self.data is None or not (self.data / name).exists():
            raise Skipped(f"needs --data with {name}")
        return self.data / name


class Skipped(Exception):
    """The model cannot be made here, and why."""


Make = Callable[[Path, Sources], About]


def write_samples(folder: Path, inputs: Mapping[str, Any], labels: Iterable[Any]) -> None:
    """Write one JSON line a record."""
    columns = {name: getattr(values, "tolist", lambda values=values: values)() for name, values in inputs.items()}
    columns["label"] = list(labels)
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        for row in zip(*columns.values(), strict=True):
            file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")


def _application(build: Callable[..., keras.Model]) -> Make:
    """An image model as Keras exports it: heavy-tailed weights, batch norms as after training, logits that spread."""

    def make(folder: Path, _: Sources) -> About:
        keras.utils.set_random_seed(SEED)
        random = np.random.default_rng(SEED)
        model = build(weights=None, classifier_activation=None)
        images = random.normal(size=(16, 224, 224, 3)).astype("f4")
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.gamma.assign(random.uniform(0.6, 1.4, layer.gamma.shape))
                layer.beta.assign(random.normal(0, 0.2, layer.beta.shape))
                layer.momentum = 0.0  # the statistics of the next batch as they are
            elif hasattr(layer, "kernel"):
                kernel = random.standard_t(5, layer.kernel.shape).astype("f4")
                inputs = layer.kernel.shape[0] * layer.kernel.shape[1] if "depthwise" in layer.name else None
                fan_in = inputs or np.prod(layer.kernel.shape[:-1])
                layer.kernel.assign(kernel * np.sqrt(2 / fan_in) / np.std(kernel))
        model(images, training=True)
        logits = np.asarray(model(images, training=False))
        last = model.layers[-1]
        # Random nets answer almost the same to everything; what differs between the images is made to count.
        scale = 3 / logits.std(axis=0).mean()
        last.kernel.assign(last.kernel * scale)
        last.bias.assign(-logits.mean(axis=0) * scale)
        outputs = keras.layers.Softmax(name="probabilities")(model.outputs[0])
        keras.Model(model.inputs, outputs).export(str(folder / "model"), verbose=False)
        return About(label=None)

    return make


def table(folder: Path, _: Sources) -> About:
    """An embedding table of 102 MB with a small layer behind it, of which the export holds one copy."""
    rows, width, words, classes = 100_000, 256, 16, 10

    class Table(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = tf.Variable(tf.random.stateless_normal([rows, width], [SEED, 0]))
            self.weights = tf.Variable(tf.random.stateless_normal([width, classes], [SEED, 1]))

        @tf.function(input_signature=[tf.TensorSpec([None, words], tf.int64, name="ids")])
        def serve(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"scores": tf.nn.softmax(tf.reduce_mean(tf.gather(self.table, ids), axis=1) @ self.weights)}

    model = Table()
    tf.saved_model.save(model, str(folder / "model"), signatures=model.serve)
    return About(label=None)


def big(folder: Path, _: Sources) -> About:
    """10 GB in 10,000 variables: a real graph and index, and a data file of which 1 % takes room on the disk."""
    count, shape, rows = 10_000, (250, 1000), 3
    with tf.Graph().as_default() as graph:
        ids = v1.placeholder(tf.int64, [None], name="ids")
        names = [f"table_{number:05d}" for number in range(count)]
        handles = [tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=shape, shared_name=name, name=name) for name in names]
        picked = [tf.raw_ops.ResourceGather(resource=handle, indices=ids, dtype=tf.float32) for handle in handles]
        # In tens: with one sum of 4,000 inputs the first call took 3.6 times as long, in TensorFlow's graph optimizer.
        while len(picked) > 1:
            picked = [tf.add_n(picked[start : start + 10]) for start in range(0, len(picked), 10)]
        vectors = tf.identity(picked[0], name="vectors")
        prefix = v1.placeholder(tf.string, [], name="save/Const")
        values = tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=names, shape_and_slices=[""] * count, dtypes=[tf.float32] * count
        )
        assigned = [
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)
            for handle, value in zip(handles, values, strict=True)
        ]
        tf.group(assigned, name="save/restore_all")
        signature = v1.saved_model.predict_signature_def({"ids": ids}, {"vectors": vectors})
        saver = v1.train.Saver([v1.Variable(0.0, use_resource=False, name="unused")]).as_saver_def()
        saver.filename_tensor_name, saver.restore_op_name = "save/Const:0", "save/restore_all"
        saver.save_tensor_name = "save/Const:0"
        _write_graph(folder / "model", graph, signature, saver)
    _write_sparse(folder / "model/variables", names, shape, rows)
    return About(label=None)


def _write_graph(path: Path, graph: tf.Graph, signature: Any, saver: Any) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = saved_model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    meta_graph.meta_info_def.tensorflow_version = tf.__version__
    meta_graph.graph_def.CopyFrom(graph.as_graph_def())
    meta_graph.signature_def["serving_default"].CopyFrom(signature)
    meta_graph.saver_def.CopyFrom(saver)
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(saved_model.SerializeToString())


def _write_sparse(path: Path, names: list[str], shape: tuple[int, int], rows: int) -> None:
    """Write tensors whose first `rows` are random and the others zero, so that none equals another."""
    random = np.random.default_rng(SEED)
    size_bytes = shape[0] * shape[1] * 4
    zeros = bytes(size_bytes - rows * shape[1] * 4)
    index = [(b"", encode_header(1))]
    path.mkdir()
    with (path / "variables.data-00000-of-00001").open("wb") as file:
        for position, name in enumerate(names):
            start = random.normal(size=(rows, shape[1])).astype("<f4").tobytes()
            file.seek(position * size_bytes)
            file.write(start)
            crc = google_crc32c.extend(google_crc32c.value(start), zeros)
            entry = TensorEntry(name, "float32", shape, 0, position * size_bytes, size_bytes, mask(crc))
            index.append((name.encode(), encode_entry(entry)))
        file.truncate(size_bytes * len(names))
    (path / "variables.index").write_bytes(b"".join(write_table(iter(sorted(index)))))


def models() -> dict[str, Make]:
    """Return how each model is made, by name, in the order of the tables."""
    import optimize_real
    import optimize_trained

    return {
        "vgg16": _application(keras.applications.VGG16),
        "resnet50": _application(keras.applications.ResNet50),
        "mobilenetv2": _application(keras.applications.MobileNetV2),
        **optimize_trained.MODELS,
        **optimize_real.MODELS,
        "table": table,
        "big": big,
    }


def make_model(name: str, directory: Path, data: Path | None) -> None:
    """Make one model, unless it is there; raises `Skipped`."""
    folder = directory / name
    if (folder / "about.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    about = models()[name](folder, Sources(data, directory / "downloads"))
    (folder / "about.json").write_text(json.dumps(asdict(about)))


def main() -> int:
    """Make the named models; exit 3 with the reason on stdout where one cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_intermixed_args()
    for name in arguments.names or models():
        try:
            make_model(name, arguments.directory, arguments.data)
        except Skipped as reason:
            print(reason)
            return 3
    return 0


if __name__ == "__main__":
    # The other modules import this one by name: let it be the same module.
    sys.modules["optimize_models"] = sys.modules[__name__]
    sys.exit(main())
