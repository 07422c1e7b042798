"""Files of Keras 2 that Keras 3 cannot read, loaded under TensorFlow 2.15: what they hold is code, or computes."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from servegraph.answers.ask import Servable
from servegraph.errors import ModelError
from servegraph.estimator import environment, keras2
from servegraph.export_serving_graph.export import export
from servegraph.savedmodel.ops import DANGER_OF

MODELS = Path(__file__).parents[1] / "export" / "models"
ready = pytest.mark.skipif(not environment.is_ready(os.environ), reason="no environment with TensorFlow 2.15 yet")


@ready
@pytest.mark.parametrize("name", ["keras2.h5", "keras2.keras"])
def test_a_keras_2_file_that_keras_3_cannot_read(name, tmp_path):
    """Keras 3 has no `groups` in DepthwiseConv2D, which Keras 2 writes."""
    result = export(MODELS / name, tmp_path / "out")
    assert result.inputs == ("image",)
    with Servable(tmp_path / "out") as servable:
        answer = servable("serving_default", {"image": np.ones((1, 4, 4, 2), np.float32)})
    assert np.allclose(answer["probabilities"], [[0.3838464, 0.3980032, 0.21815048]], atol=1e-5)


@ready
def test_a_keras_2_file_in_mixed_precision(tmp_path):
    """Keras 3 raises an AttributeError of its own at a policy as Keras 2 writes it."""
    file = shutil.copy(MODELS / "keras2.h5", tmp_path / "m.h5")
    with h5py.File(file, "r+") as opened:
        config = json.loads(opened.attrs["model_config"])
        layers = sorted(config["config"]["layers"], key=lambda layer: layer["class_name"] != "Dense")
        layers[0]["config"]["dtype"] = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
        config["config"]["layers"] = layers
        opened.attrs["model_config"] = json.dumps(config)
    export(file, tmp_path / "out")
    with Servable(tmp_path / "out") as servable:
        answer = servable("serving_default", {"image": np.ones((1, 4, 4, 2), np.float32)})
    assert np.allclose(answer["probabilities"], [[0.384, 0.398, 0.218]], atol=2e-3)


def with_layer(path, layer, spelling=json.dumps):
    """Write the HDF5 file of Keras 2 with one more layer to `path`, its configuration spelt by `spelling`."""
    shutil.copy(MODELS / "keras2.h5", path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"].append({"name": "added", "inbound_nodes": [], **layer})
        file.attrs["model_config"] = spelling(config)
    return path


LAMBDA = {
    "class_name": "Lambda",
    "config": {"name": "added", "function": ["4wA=", None, None], "function_type": "lambda"},
}
SYSTEM = {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"}
RUN_CODE = {
    "lambda": LAMBDA,
    "lambda-below": {
        "class_name": "TimeDistributed",
        "config": {"layer": {"class_name": "Sequential", "config": [LAMBDA]}},
    },
    "marshalled-value": {"class_name": "Dense", "config": {"activation": {"class_name": "__lambda__", "config": {}}}},
    "function": {"class_name": "Dense", "config": {"activation": SYSTEM}},
    "builtin": {"class_name": "Dense", "config": {"activation": {**SYSTEM, "module": "builtins", "config": "eval"}}},
    "module": {"class_name": "Dense", "module": "own", "config": {}},
    "registered-name": {
        "class_name": "Dense",
        "module": "keras.src.utils.data_utils",
        "registered_name": "get_file",
        "config": {},
    },
    "cell": {"class_name": "ResidualWrapper", "config": {"residual_fn": ["4wA=", None, None]}},
    "column": {"class_name": "NumericColumn", "config": {"key": "x", "normalizer_fn": "log"}},
    "method": {"class_name": "InstanceMethod", "config": {"attr_name": "__reduce__"}},
    "class-method": {
        "class_name": "ClassMethod",
        "config": {"cls_symbol": "io.TFRecordWriter", "method_name": "write"},
    },
    "vocabulary": {"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
    "vocabulary-column": {"class_name": "VocabularyFileCategoricalColumn", "config": {"vocabulary_file": "gs://a/b"}},
    "checkpoint-column": {"class_name": "EmbeddingColumn", "config": {"ckpt_to_load_from": "/tmp/model.ckpt"}},
    "versions-of-code": {"class_name": "LambdaV2", "config": {}},
}


@pytest.mark.parametrize("layer", RUN_CODE.values(), ids=RUN_CODE.keys())
def test_what_could_run_code_in_keras_2_is_refused(layer, tmp_path):
    with pytest.raises(ModelError) as caught:
        keras2.refuse_code(with_layer(tmp_path / "m.h5", layer), keras)
    assert caught.value.code == "UNTRUSTED_CODE"


def called(function, name="TFOpLambda"):
    return {"class_name": name, "registered_name": name, "config": {"name": "added", "function": function}}


def operation(node, constants=None):
    """A layer as Keras of TensorFlow 2.0 to 2.3 makes one of an operation."""
    config = {"name": "added", "trainable": True, "dtype": "float32", "node_def": node, "constants": constants or {}}
    return {"class_name": "TensorFlowOpLayer", "config": config}


def node_def(op):
    return {"name": "added", "op": op, "input": ["x", "y"], "attr": {"T": {"type": "DT_FLOAT"}}}


def encoded(*ops):
    """A NodeDef as text, with one operation after the other."""
    return "\n\x05added" + "".join(f"\x12{chr(len(op))}{op}" for op in ops)


OF_VALUES = """
    __operators__.add audio.decode_wav bitcast compat.v1.losses.huber_loss compat.v1.to_float debugging.assert_equal
    debugging.check_numerics dtypes.saturate_cast dynamic_partition io.decode_csv io.decode_jpeg io.encode_base64
    io.parse_example io.parse_tensor keras.activations.gelu keras.backend.batch_dot keras.losses.huber
    keras.metrics.mean_squared_error linspace math.special.bessel_j0 math.truediv meshgrid
    nn.experimental.stateless_dropout quantization.fake_quant_with_min_max_args random.uniform sequence_mask
    sets.intersection sparse.to_dense strings.unicode_split tensor_scatter_nd_update unique
"""
COMPUTE = {
    **{function: called(function) for function in OF_VALUES.split()},
    "cell": {
        "class_name": "RNN",
        "config": {"cell": {"class_name": "LSTMCell", "module": "keras.layers", "config": {}}},
    },
    "slice": called("__operators__.getitem", "SlicingOpLambda"),
    "loss": {"class_name": "AddLoss", "config": {"unconditional": False}},
    "metric": {"class_name": "AddMetric", "config": {"aggregation": "mean", "metric_name": "m"}},
    "column": {"class_name": "NumericColumn", "config": {"key": "x", "normalizer_fn": None}},
    "embedding-column": {"class_name": "EmbeddingColumn", "config": {"dimension": 2, "ckpt_to_load_from": None}},
    "vocabulary": {"class_name": "StringLookup", "config": {"vocabulary": ["/etc/passwd"]}},
    "version-1": {"class_name": "BatchNormalizationV1", "config": {}},
    "version-2": {"class_name": "GRU", "config": {"kernel_initializer": {"class_name": "ZerosV2", "config": {}}}},
    "ragged": {"class_name": "InstanceMethod", "config": {"attr_name": "row_lengths"}},
    "operation": operation(node_def("AddV2"), {"1": 2.0}),
    "operation-encoded": operation(encoded("Mul")),
    "to-ragged": {"class_name": "ClassMethod", "config": {"cls_symbol": "RaggedTensor", "method_name": "from_tensor"}},
}


@pytest.mark.parametrize("layer", COMPUTE.values(), ids=COMPUTE.keys())
def test_what_computes_in_keras_2_is_not_refused(layer, tmp_path):
    keras2.refuse_code(with_layer(tmp_path / "m.h5", layer), keras)


def functions_that_reach_out():
    """Every operation of TensorFlow that does, by the names it would have as a function, and what is no operation."""
    for operation in DANGER_OF:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation).lower().removesuffix("_v2")
        yield from (name, f"io.{name}", f"compat.v1.{name}", f"compat.v1.io.{name}")
    yield from ["random.fixed_unigram_candidate_sampler", "compat.v1.nn.fixed_unigram_candidate_sampler"]
    yield from [
        "print",
        "compat.v1.Print",
        "py_function",
        "numpy_function",
        "compat.v1.py_func",
        "load_library",
        "load_op_library",
    ]
    yield from ["io.read_file", "io.write_graph", "io.TFRecordWriter", "io.gfile.remove", "io.match_filenames_once"]
    yield from ["debugging.enable_dump_debug_info", "debugging.experimental.enable_dump_debug_info"]
    yield from ["data.TFRecordDataset", "keras.utils.get_file", "keras.models.load_model", "saved_model.load"]
    yield from ["keras.losses.deserialize", "keras.activations.get", "keras.backend.print_tensor", "raw_ops.ReadFile"]
    yield from ["quantization.experimental.quantize_saved_model", "summary.create_file_writer", "xla_custom_call"]


def test_no_function_that_reaches_out_of_a_model_is_let_in():
    names = keras2.Names.of(keras)
    layers = {function: called(function) for function in functions_that_reach_out()}
    assert {f: list(names.strangers(layer)) for f, layer in layers.items()} == {
        f: [f"TFOpLambda of {f}"] for f in layers
    }


def test_no_operation_that_reaches_out_of_a_model_is_let_in():
    names = keras2.Names.of(keras)
    others = {"EagerPyFunc", "PyFuncStateless", "StatefulPartitionedCall", "While", "ReadVariableOp", "XlaCustomCallV2"}
    for op in {*DANGER_OF, *others}:
        for node in (node_def(op), encoded(op), encoded("Mul", op)):
            assert list(names.strangers(operation(node))) == [f"TensorFlowOpLayer of {op}"]
    for node in (None, {}, "", "\x12\x7f", 5):
        assert list(names.strangers(operation(node))) == ["TensorFlowOpLayer of None"]


@ready
def test_a_model_of_operations_as_tensorflow_2_3_writes_it(tmp_path):
    """Its input is doubled by an operation on the way to the layer that took it."""
    file = shutil.copy(MODELS / "keras2.h5", tmp_path / "m.h5")
    with h5py.File(file, "r+") as opened:
        config = json.loads(opened.attrs["model_config"])
        layers = config["config"]["layers"]
        node = {"name": "mul", "op": "Mul", "input": ["image", "mul/y"], "attr": {"T": {"type": "DT_FLOAT"}}}
        added = {**operation(node, {"1": 2.0}), "name": "tf_op_layer_mul", "inbound_nodes": [[["image", 0, 0, {}]]]}
        added["config"]["name"] = "mul"
        layers[1]["inbound_nodes"] = json.loads(
            json.dumps(layers[1]["inbound_nodes"]).replace('"image"', '"tf_op_layer_mul"')
        )
        layers.insert(1, added)
        opened.attrs["model_config"] = json.dumps(config)
    export(file, tmp_path / "doubled")
    export(MODELS / "keras2.h5", tmp_path / "plain")
    image = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype(np.float32)
    answers = []
    for path, asked in ((tmp_path / "doubled", image), (tmp_path / "plain", 2 * image)):
        with Servable(path) as servable:
            answers.append(servable("serving_default", {"image": asked})["probabilities"])
    assert np.allclose(*answers, atol=1e-6)


def test_a_refusal_names_the_function_of_a_layer(tmp_path):
    with pytest.raises(
        ModelError, match=r"holds TFOpLambda of io\.write_file, which may run Python code or reach files"
    ):
        keras2.refuse_code(with_layer(tmp_path / "m.h5", called("io.write_file")), keras)


def test_pickled_weights_of_keras_2_are_refused(tmp_path):
    shutil.copy(MODELS / "keras2.keras", tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras", "a") as archive:
        archive.writestr("model.weights.npz", b"")
    with pytest.raises(ModelError) as caught:
        keras2.refuse_code(tmp_path / "m.keras", keras)
    assert caught.value.code == "UNTRUSTED_CODE"


def elsewhere(kind, group, path):
    """Put weights into an HDF5 group that are in another file."""
    if kind == "link":
        group["weights"] = h5py.ExternalLink(str(path), "weights")
    elif kind == "external":
        group.create_dataset("weights", (2,), "f4", external=[(str(path), 0, 8)])
    else:
        layout = h5py.VirtualLayout((2,), "f4")
        layout[:] = h5py.VirtualSource(str(path), "weights", (2,))
        group.create_virtual_dataset("weights", layout)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("kind", ["link", "external", "virtual"])
def test_weights_in_another_file_are_refused_whoever_made_it(kind, suffix, tmp_path):
    secret, model = tmp_path / "secret", tmp_path / f"m{suffix}"
    shutil.copy(MODELS / f"keras2{suffix}", model)
    if suffix == ".h5":
        with h5py.File(model, "r+") as file:
            elsewhere(kind, file["model_weights"], secret)
    else:
        with zipfile.ZipFile(model) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        (tmp_path / "weights.h5").write_bytes(members["model.weights.h5"])
        with h5py.File(tmp_path / "weights.h5", "r+") as file:
            elsewhere(kind, file, secret)
        members["model.weights.h5"] = (tmp_path / "weights.h5").read_bytes()
        with zipfile.ZipFile(model, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    with pytest.raises(ModelError, match=f"weights in the file '{secret}'") as caught:
        keras2.load(model, keras, trust_code=True)
    assert caught.value.code == "LINK_OUTSIDE"


@ready
def test_code_in_a_keras_2_file_does_not_run_however_it_is_spelt(tmp_path):
    def escaped(config):
        return json.dumps(config).replace('"Lambda"', '"\\u004cambda"')

    with pytest.raises(ModelError) as caught:
        export(with_layer(tmp_path / "m.h5", LAMBDA, escaped), tmp_path / "out")
    assert caught.value.code == "UNTRUSTED_CODE"
