"""The table of docs/sources.md, a row a source: export, inspect, optimize, deploy to the local target, equal answers.

The deploy asks the prediction server the golden requests that the optimizer recorded, and goes on only if it answers
as the source did. Estimators and a Keras 2 file need the environment with TensorFlow 2.15, which no test makes;
models of others are those in the directory that `SERVEGRAPH_REAL_MODELS` names, one a folder.
"""

import os
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from tests.small_estimator import train_small, write_data

from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets import Place, open_target
from servegraph.estimator import environment
from servegraph.export_serving_graph.export import export
from servegraph.export_serving_graph.signature_choice import Wanted
from servegraph.inspect_graph.inspect import inspect
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize

v1 = tf.compat.v1
REAL = Path(__file__).parents[2] / "real_models"


def keras_file(path):
    x = keras.Input((3,), name="x")
    keras.Model(x, keras.layers.Dense(2)(x)).save(path / "m.keras")
    return path / "m.keras", Wanted()


def tf_module(path):
    class Doubling(tf.Module):
        def __init__(self):
            self.weight = tf.Variable(2.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def double(self, x):
            return {"y": self.weight * x}

    tf.saved_model.save(Doubling(), str(path / "module"))
    return path / "module", Wanted()


def tf1_checkpoint(path):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        y = tf.nn.softmax(tf.matmul(x, v1.get_variable("weights", [4, 2])), name="p")
        v1.train.AdamOptimizer().minimize(tf.reduce_sum(y))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(path / "model.ckpt"), global_step=7)
    return path, Wanted(outputs={"p": "p"})


def estimator(path):
    write_data(path)
    train_small(path)
    return path / "model", Wanted()


SOURCES = {
    "keras": keras_file,
    "keras-2-savedmodel": lambda _: (Path(__file__).parent / "models/keras2_saved", Wanted()),
    "tf1-savedmodel": lambda _: (REAL / "v1_adam", Wanted()),
    "tf2-savedmodel": lambda _: (REAL / "module", Wanted(signatures={"serving_default": "serving_default"})),
    "tf-module": tf_module,
    "tf1-checkpoint": tf1_checkpoint,
}
UNDER_TENSORFLOW_215 = {
    "keras-2-h5": lambda _: (Path(__file__).parent / "models/keras2.h5", Wanted()),
    "estimator": estimator,
}
OTHERS = Path(os.environ.get("SERVEGRAPH_REAL_MODELS") or "nowhere")
ready = pytest.mark.skipif(not environment.is_ready(os.environ), reason="no environment with TensorFlow 2.15 yet")


def errors(model):
    return {finding.code for finding in inspect(str(model)).findings if finding.severity == "error"}


def go_through(source, wanted, path, allowed=frozenset()):
    """Export, optimize, inspect and deploy a source; return the bytes before and after optimizing."""
    assert export(source, path / "out", wanted=wanted).max_abs_diff <= 1e-5
    optimized = optimize(path / "out", path / "slim", Goal())
    assert optimized.golden_requests > 0
    assert errors(path / "slim") <= allowed
    place = Place(root=str(path / "root"))
    assert deploy(DeployRequest(str(path / "slim"), "model"), open_target("local", place)).outcome == "created"
    return optimized.before_bytes, optimized.after_bytes


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_becomes_a_deployed_version(kind, tmp_path):
    (tmp_path / "source").mkdir()
    before, after = go_through(*SOURCES[kind](tmp_path / "source"), tmp_path)
    assert after <= before + 20_000  # the golden requests are in it


@ready
@pytest.mark.slow
@pytest.mark.parametrize("kind", UNDER_TENSORFLOW_215)
def test_a_source_of_tensorflow_215_becomes_a_deployed_version(kind, tmp_path):
    (tmp_path / "source").mkdir()
    go_through(*UNDER_TENSORFLOW_215[kind](tmp_path / "source"), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not OTHERS.is_dir(), reason="SERVEGRAPH_REAL_MODELS names no directory")
@pytest.mark.parametrize("model", sorted(OTHERS.iterdir()) if OTHERS.is_dir() else [], ids=lambda path: path.name)
def test_a_model_of_others_becomes_a_deployed_version(model, tmp_path):
    go_through(model.resolve(), Wanted(), tmp_path, allowed=errors(model.resolve()))  # such as a fixed batch of its own
    on_gpu = export(model.resolve(), tmp_path / "gpu", wanted=Wanted(gpu_graph="float32"))
    assert on_gpu.tag_sets == (("serve",), ("serve", "gpu"))
