"""A function in whose place TensorFlow puts another one on a GPU keeps it, as Keras 2 writes LSTM and GRU."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from servegraph.answers.ask import Servable
from servegraph.optimize.optimize import Goal, optimize


@tf.function
def layer(x, kernel):
    return tf.nn.relu(x @ kernel), tf.reduce_sum(x)  # nothing reads the sum


class Layered(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(0).normal(size=[4, 5]).astype(np.float32))
        self.scale = tf.Variable(tf.range(1.0, 6.0))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
    def serve(self, x):
        return {"y": tf.matmul(layer(x, self.kernel)[0], tf.linalg.diag(self.scale)) * self.scale}


def read(path):
    saved_model = SavedModel()
    saved_model.ParseFromString((path / "saved_model.pb").read_bytes())
    return saved_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model whose layer has a form for GPUs, and one for training, which returns more."""
    path = tmp_path_factory.mktemp("forms") / "model"
    made = Layered()
    tf.saved_model.save(made, str(path), signatures=made.serve)
    saved_model = read(path)
    library = saved_model.meta_graphs[0].graph_def.library
    (on_cpu,) = [function for function in library.function if "layer" in function.signature.name]
    for name in ("on_gpu", "for_training"):
        form = library.function.add()
        form.CopyFrom(on_cpu)
        form.signature.name = name
        form.attr["api_preferred_device"].s = b"GPU"
    more = form.signature.output_arg.add()
    more.CopyFrom(form.signature.output_arg[0])
    more.name = "more"
    form.ret["more"] = next(iter(form.ret.values()))
    on_cpu.attr["api_preferred_device"].s = b"CPU"
    for function in library.function:
        if "api_preferred_device" in function.attr:
            function.attr["api_implements"].s = b"layer"
    (path / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    return path


@pytest.mark.parametrize("rungs", [("strip", "share"), ("strip", "fold"), ("strip", "fold", "shorten")])
def test_the_form_for_a_gpu_stays_with_its_interface(model, rungs, tmp_path):
    steps = optimize(model, tmp_path / "out", Goal(rungs=rungs)).steps
    assert not [step.reason for step in steps if step.reason.startswith(("undone", "cannot"))]
    graph = read(tmp_path / "out").meta_graphs[0].graph_def
    forms = {f.signature.name: f for f in graph.library.function if "api_implements" in f.attr}
    assert {f.attr["api_preferred_device"].s for f in forms.values()} == {b"CPU", b"GPU"}
    assert "for_training" not in forms
    one, other = (f.signature for f in forms.values())
    for args, others in ((one.input_arg, other.input_arg), (one.output_arg, other.output_arg)):
        assert [arg.type for arg in args] == [arg.type for arg in others]
    assert len(one.output_arg) == 2
    request = {"x": np.random.default_rng(1).normal(size=[3, 4]).astype(np.float32)}
    with Servable(model, loader="session") as servable:
        want = servable("serving_default", request)["y"]
    for loader in ("session", "v2"):
        with Servable(tmp_path / "out", loader=loader) as servable:
            assert np.allclose(servable("serving_default", request)["y"], want, rtol=1e-6)


def test_a_graph_with_such_a_function_is_still_folded(model, tmp_path):
    optimize(model, tmp_path / "out", Goal(rungs=("strip", "fold")))
    operations = [node.op for node in read(tmp_path / "out").meta_graphs[0].graph_def.node]
    assert "MatrixDiagV3" not in operations
