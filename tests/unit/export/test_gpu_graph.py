"""Two MetaGraphs over the same variables: one for the CPU, one for the GPU, from TF2 and TF1 models.

There is no GPU here: TensorFlow's soft placement runs on the CPU what is placed on one.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import kernels, op_def_registry

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets import Place, open_target
from servegraph.errors import ExportRefused, InputError
from servegraph.evaluate.evaluate import evaluate
from servegraph.evaluate.judge import Criteria
from servegraph.export_serving_graph.export import export
from servegraph.export_serving_graph.signature_choice import Wanted, precision
from servegraph.inspect_graph.inspect import inspect
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.rewriting.gpu_graph import PLACED
from servegraph.rewriting.lower_precision import FOLLOWING, PRODUCTS
from servegraph.serve.model import load_model
from servegraph.serve.state import ServingConfig

v1 = tf.compat.v1
REAL = Path(__file__).parents[2] / "real_models"
BOTH = (("serve",), ("serve", "gpu"))
GPU = ServingConfig("n1-standard-4", "NVIDIA_TESLA_T4", 1)


def keras_file(path):
    x, word = keras.Input((40,), name="x"), keras.Input((), name="word", dtype="string")
    ids = keras.layers.StringLookup(vocabulary=["red", "blue"])(word)
    both = keras.layers.Concatenate()([x, keras.layers.Embedding(3, 4)(ids)])
    hidden = keras.layers.Dense(64, activation="relu")(both)
    keras.Model([x, word], keras.layers.Dense(3, activation="softmax", name="p")(hidden)).save(path / "m.keras")
    return path / "m.keras"


def tf1_model(_):
    return REAL / "v1_adam"


def meta_graphs(path):
    saved_model = SavedModel()
    saved_model.ParseFromString((path / "saved_model.pb").read_bytes())
    return {tuple(graph.meta_info_def.tags): graph for graph in saved_model.meta_graphs}


def nodes(meta_graph):
    yield from meta_graph.graph_def.node
    for function in meta_graph.graph_def.library.function:
        yield from function.node_def


def answers_of(path, tags, signature, request):
    """Ask as TensorFlow's own documentation does; soft placement, because there is no GPU."""
    with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(allow_soft_placement=True)) as session:
        definition = v1.saved_model.loader.load(session, list(tags), str(path)).signature_def[signature]
        outputs = {name: info.name for name, info in definition.outputs.items()}
        return session.run(outputs, {definition.inputs[name].name: value for name, value in request.items()})


REQUESTS = {
    keras_file: ("serving_default", {"x": np.ones((2, 40), "f4"), "word": np.array([b"red", b"?"], object)}),
    tf1_model: ("serving_default", {"x": np.ones((2, 20), "f4"), "ids": np.array([0, 1])}),
}


@pytest.mark.filterwarnings("ignore:.*loader.load")
@pytest.mark.parametrize("make", REQUESTS)
def test_both_graphs_share_all_but_the_graph(make, tmp_path):
    source = make(tmp_path)
    signature, request = REQUESTS[make]
    export(source, tmp_path / "one")
    both = tmp_path / "both"
    assert export(source, both, wanted=Wanted(gpu_graph="float32")).tag_sets == BOTH
    assert [graph["tags"] for graph in inspect(str(both)).to_json()["meta_graphs"]] == [["serve"], ["serve", "gpu"]]
    assert not [f for f in inspect(str(both)).findings if f.severity == "error"]
    sizes = {p: sum(f.size_bytes for f in storage.open_dir(tmp_path / p).files()) for p in ("one", "both")}
    graph_bytes = (both / "saved_model.pb").stat().st_size
    assert sizes["both"] - sizes["one"] < graph_bytes  # nothing else is there twice
    stored = {file.name: file.stat().st_size for file in (both / "variables").iterdir()}
    assert stored["variables.data-00000-of-00001"] <= (
        (tmp_path / "one/variables/variables.data-00000-of-00001").stat().st_size
    )
    expected = answers_of(tmp_path / "one", ["serve"], signature, request)
    for tags in BOTH:
        for name, value in answers_of(both, tags, signature, request).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-6)
        with Servable(both, tags=tags, loader="v2") as servable:  # tf.saved_model.load(path, tags=…)
            assert servable(signature, request).keys() == expected.keys()


def test_only_what_has_a_kernel_is_placed_on_the_gpu(tmp_path):
    export(keras_file(tmp_path), tmp_path / "out", wanted=Wanted(gpu_graph="bfloat16"))
    found = meta_graphs(tmp_path / "out")
    assert {node.device for node in nodes(found["serve",])} <= {"", "/device:CPU:0"}
    on_gpu = {node.op for node in nodes(found["serve", "gpu"]) if node.device == "/device:GPU:0"}
    assert {"MatMul", "Relu", "Cast", "Softmax"} <= on_gpu
    assert not on_gpu & {"VarHandleOp", "LookupTableFindV2", "ReadVariableOp", "RestoreV2", "HashTableV2"}
    dtypes = {node.op: node.attr["T"].type for node in nodes(found["serve", "gpu"]) if node.op in ("MatMul", "Softmax")}
    assert dtypes == {"MatMul": tf.bfloat16.as_datatype_enum, "Softmax": tf.float32.as_datatype_enum}


@pytest.mark.parametrize("lower", ["bfloat16", "float16"])
def test_a_lower_precision_is_measured_and_said(lower, tmp_path):
    signature, request = REQUESTS[keras_file]
    result = export(keras_file(tmp_path), tmp_path / "out", wanted=Wanted(gpu_graph=lower))
    assert 0 < result.max_abs_diff < 0.05
    assert any(lower in note and "made-up" in note for note in result.notes)
    plain, on_gpu = (answers_of(tmp_path / "out", tags, signature, request)["p"] for tags in BOTH)
    assert 0 < np.abs(plain - on_gpu).max() < 0.05
    assert on_gpu.dtype == np.float32


def test_large_constants_of_the_graph_are_stored_once(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 100], name="x")
        y = tf.matmul(x, tf.constant(np.random.default_rng(0).normal(size=(100, 500)), tf.float32))
        v1.saved_model.simple_save(session, str(tmp_path / "frozen"), {"x": x}, {"y": y})
    export(tmp_path / "frozen", tmp_path / "out", wanted=Wanted(gpu_graph="float32"))
    assert sum(file.size_bytes for file in storage.open_dir(tmp_path / "out").files()) < 200_000 + 20_000


def test_what_no_gpu_can_do(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.string, [None], name="x")
        v1.saved_model.simple_save(session, str(tmp_path / "text"), {"x": x}, {"y": tf.strings.lower(x)})
    with pytest.raises(ExportRefused) as caught:
        export(tmp_path / "text", tmp_path / "out", wanted=Wanted(gpu_graph="float32"))
    assert caught.value.code == "NOTHING_FOR_GPU"
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
    with pytest.raises(InputError) as unknown:
        precision("int8")
    assert unknown.value.code == "UNKNOWN_PRECISION"


def image_file(path):
    x = keras.Input((8, 8, 3), name="x")
    hidden = keras.layers.BatchNormalization()(keras.layers.Conv2D(64, 3, use_bias=False)(x))
    hidden = keras.layers.BatchNormalization()(keras.layers.Conv2D(64, 3, use_bias=False)(hidden))
    p = keras.layers.Dense(3, activation="softmax", name="p")(keras.layers.GlobalAveragePooling2D()(hidden))
    keras.Model(x, p).save(path / "m.keras")
    return path / "m.keras"


@pytest.fixture(scope="module")
def slim(tmp_path_factory):
    """A model with both graphs, optimized: batch normalization folded, once for both."""
    path = tmp_path_factory.mktemp("slim")
    export(image_file(path), path / "both", wanted=Wanted(gpu_graph="bfloat16"))
    done = optimize(path / "both", path / "slim", Goal())
    assert "fold" in [step.name for step in done.steps if step.kept]
    return path / "slim"


@pytest.mark.slow
def test_what_is_optimized_keeps_both_over_one_copy_of_the_weights(slim):
    found = meta_graphs(slim)
    assert tuple(found) == BOTH
    for meta_graph in found.values():
        assert not [node for node in nodes(meta_graph) if node.op == "FusedBatchNormV3"]
    assert {node.attr["T"].type for node in nodes(found["serve", "gpu"]) if node.op == "Conv2D"} == {
        tf.bfloat16.as_datatype_enum
    }
    weights = 4 * (3 * 3 * 3 * 64 + 3 * 3 * 64 * 64 + 2 * 64 + 64 * 3 + 3)
    assert (slim / "variables/variables.data-00000-of-00001").stat().st_size < 1.05 * weights


@pytest.mark.slow
def test_what_is_optimized_is_served_judged_and_exported_again(slim, tmp_path):
    request = {"x": np.ones((2, 8, 8, 3), "f4")}
    with Servable(slim) as servable:
        expected = servable("serving_default", request)
    served = load_model(slim).run("serving_default", request)
    assert np.allclose(served["p"], expected["p"], atol=1e-6)
    records = tmp_path / "records.jsonl"
    records.write_text(json.dumps({"x": np.ones((8, 8, 3)).tolist(), "y": 1}) + "\n")
    assert evaluate(str(slim), "", str(records), "y=p", Criteria()).to_json()
    for tags in BOTH:
        result = export(slim, tmp_path / "-".join(tags), wanted=Wanted(tags=tags))
        assert result.tag_sets == (tags,)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "number"), [(ServingConfig(), 0), (GPU, 1)])
def test_what_is_deployed_answers_as_recorded_for_its_machine(slim, config, number, tmp_path):
    target = open_target("local", Place(root=str(tmp_path / "root")))
    done = deploy(DeployRequest(str(slim), "model", config), target)
    (deployed,) = meta_graphs(Path(done.resource)).values()
    assert list(deployed.meta_info_def.tags) == ["serve"]
    casts = [node for node in nodes(deployed) if node.op == "Cast"]
    assert bool(casts) == bool(number)


@pytest.mark.parametrize("op", sorted(PRODUCTS | FOLLOWING))
def test_an_operation_of_lower_precision_has_one_output_and_kernels(op):
    (output,) = op_def_registry.get(op).output_arg
    assert output.type_attr == "T"
    allowed = [
        {t for constraint in kernel.constraint if constraint.name == "T" for t in constraint.allowed_values.list.type}
        for kernel in kernels.get_registered_kernels_for_op(op).kernel
        if kernel.device_type == "CPU"  # where it is asked before it is published
    ]
    assert {tf.bfloat16.as_datatype_enum, tf.float16.as_datatype_enum} <= set().union(*allowed) or set() in allowed


def test_what_is_placed_is_known():
    assert PRODUCTS | FOLLOWING - {"Identity", "Reshape", "Squeeze", "ExpandDims"} <= PLACED
    assert not [op for op in PLACED if op_def_registry.get(op) is None]
