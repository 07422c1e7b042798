"""The rung that makes variables of a frozen graph's weights: the same answers, and far less memory when it is served."""

import re

import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.answers.evidence import Question
from servegraph.answers.samples import Samples
from servegraph.inspect_graph.inspect import inspect_directory
from servegraph.optimize import served_memory
from servegraph.optimize.frozen import as_variables
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.rewriting import draft_reader, draft_writer

tf1 = tf.compat.v1
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

X = {"x": np.random.default_rng(1).normal(size=(3, 1000)).astype(np.float32)}


def frozen(path, columns):
    """A TF1 export without variables: a matrix of 1,000 rows and a bias are constants of the graph."""
    draw = np.random.default_rng(0)
    with tf1.Session(graph=tf.Graph()) as session:
        x = tf1.placeholder(tf.float32, [None, 1000], "x")
        weights = tf1.constant(draw.normal(size=(1000, columns)).astype(np.float32), name="weights")
        bias = tf1.constant(draw.normal(size=columns).astype(np.float32), name="bias")
        y = tf.nn.softmax(tf1.matmul(x, weights) * 0.05 + bias, name="y")
        builder = tf1.saved_model.Builder(str(path))
        signature = tf1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("frozen") / "model"
    frozen(path, 8000)  # 32 MB
    return path


@pytest.fixture(scope="module")
def changed(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("variables") / "model"
    draft_writer.write(as_variables(draft_reader.read(model)), path)
    return path


def answers(path, loader):
    with Servable(path, loader=loader) as servable:
        return servable("serving_default", X)["y"]


@pytest.mark.parametrize("loader", ["session", "v2"])
def test_it_answers_the_same(model, changed, loader):
    np.testing.assert_allclose(answers(changed, loader), answers(model, loader), rtol=1e-5)


def test_the_graph_holds_no_weights_any_more(model, changed):
    found = [
        {item.code for item in inspect_directory(storage.open_dir(path), verify=True).findings}
        for path in (model, changed)
    ]
    assert "FROZEN_CONSTANTS" in found[0]
    assert found[1] == found[0] - {"FROZEN_CONSTANTS"}
    assert (changed / "saved_model.pb").stat().st_size < 20_000


def test_a_server_takes_less_memory_for_it(model, changed):
    question = Question(("serve",), "session", "serving_default", Samples(X, 3, generated=True), ())
    assert not served_memory.objection(model, changed, question)
    assert re.match(r"takes .* MB of memory", served_memory.objection(changed, model, question))


def test_it_is_tried_unasked_and_kept_where_it_is_not_slower(model, tmp_path):
    result = optimize(model, tmp_path / "out", Goal())
    step = next(step for step in result.steps if step.name == "variables")
    assert step.kept or re.match(r"does not pay: .* times as fast", step.reason)
    assert step.kept == ((tmp_path / "out/saved_model.pb").stat().st_size < 20_000)


def test_of_few_bytes_nobody_waits_for_the_clock(tmp_path):
    frozen(tmp_path / "model", 1000)
    draft = draft_reader.read(tmp_path / "model")
    assert as_variables(draft) is draft
