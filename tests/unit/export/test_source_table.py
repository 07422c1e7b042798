"""The table of docs/sources.md, a row a source: export, inspect, optimize, deploy to the local target, equal answers.

The deploy asks the prediction server the golden requests that the optimizer recorded, and goes on only if it answers
as the source did.
"""

from pathlib import Path

import keras
import pytest
import tensorflow as tf

from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets import Place, open_target
from servegraph.export_serving_graph.export import export
from servegraph.export_serving_graph.signature_choice import Wanted
from servegraph.inspect_graph.inspect import inspect
from servegraph.optimize.optimize import Goal, optimize

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


SOURCES = {
    "keras": keras_file,
    "keras-2-savedmodel": lambda _: (Path(__file__).parent / "models/keras2_saved", Wanted()),
    "tf1-savedmodel": lambda _: (REAL / "v1_adam", Wanted()),
    "tf2-savedmodel": lambda _: (REAL / "module", Wanted(signatures={"serving_default": "serving_default"})),
    "tf-module": tf_module,
    "tf1-checkpoint": tf1_checkpoint,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_becomes_a_deployed_version(kind, tmp_path):
    (tmp_path / "source").mkdir()
    source, wanted = SOURCES[kind](tmp_path / "source")
    assert export(source, tmp_path / "out", wanted=wanted).max_abs_diff <= 1e-5
    optimized = optimize(tmp_path / "out", tmp_path / "slim", Goal())
    assert optimized.golden_requests > 0
    assert optimized.after_bytes <= optimized.before_bytes + 20_000  # the golden requests are in it
    assert [f.code for f in inspect(str(tmp_path / "slim")).findings if f.severity == "error"] == []
    outcome = deploy(
        DeployRequest(str(tmp_path / "slim"), "model"), open_target("local", Place(root=str(tmp_path / "root")))
    )
    assert outcome.outcome == "created"
