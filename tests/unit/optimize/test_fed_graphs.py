"""Graphs of TF1 of which a request replaces more than the placeholders: each rung answers as the original did."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tests.tf1_models import assert_same, changed, graph_with, save, signature, weights

from servegraph.answers.ask import LOADERS, Servable
from servegraph.optimize.constants import as_constants
from servegraph.optimize.fold import fold
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.optimize.share import share
from servegraph.rewriting.strip import strip

tf1 = tf.compat.v1
ops = tf.raw_ops
X = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def fed_over(path, session):
    """Signatures that replace what is computed from weights, a constant, a weight, by what a request holds."""
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    scale, temperature = weights("s", [8], use_resource=True) * 2.0, tf.constant(3.0)
    shift = weights("w", [8], use_resource=True)
    first, second = (ops.ReadVariableOp(resource=shift.handle, dtype=tf.float32) for _ in range(2))
    y = x * scale / temperature + first * 2.0 + second
    signatures = {"serving_default": signature({"x": x}, {"y": y})}
    for name, tensor in {"scale": scale, "temperature": temperature, "shift": first}.items():
        signatures[name] = signature({"x": x, name: tensor}, {"y": y})
    return save(path, session, signatures)


@pytest.mark.parametrize("rungs", [(strip, fold), (strip, as_constants), (strip, share)])
def test_what_a_request_replaces_is_not_known_beforehand(tmp_path, rungs):
    path = graph_with(fed_over, tmp_path / "m")
    requests = [
        ("serving_default", {"x": X}),
        ("scale", {"x": X, "scale": X[0]}),
        ("temperature", {"x": X, "temperature": np.float32(7)}),
        ("shift", {"x": X, "shift": X[1]}),
    ]
    assert_same(path, requests, *rungs)


def flagged(path, session):
    """A training switch that is a constant, which one signature feeds; beside one that nobody does."""
    x, flag = tf1.placeholder(tf.float32, [None, 8], name="x"), tf.constant(False, name="is_training")
    other = tf1.placeholder_with_default(False, [], name="other")
    y = tf1.cond(flag, lambda: x * weights("w", [8], use_resource=True), lambda: x + 1.0)
    z = tf1.cond(other, lambda: y * 2.0, lambda: y)
    return save(
        path,
        session,
        {"serving_default": signature({"x": x}, {"z": z}), "flagged": signature({"x": x, "flag": flag}, {"z": z})},
    )


def test_a_constant_switch_that_a_request_replaces_keeps_both_branches(tmp_path):
    path = graph_with(flagged, tmp_path / "m")
    requests = [("serving_default", {"x": X}), *(("flagged", {"x": X, "flag": np.array(f)}) for f in (True, False))]
    assert_same(path, requests, strip)


def shaped_by_a_request(path, session):
    """One signature replaces the constant that says which shape a product gets before a batch norm."""
    x, sizes = tf1.placeholder(tf.float32, [None, 8], name="x"), tf.constant([-1, 8])
    reshaped = tf.reshape(x @ weights("w"), sizes)
    y = reshaped * weights("scale", [8], use_resource=True) + weights("shift", [8], use_resource=True)
    requests = {"serving_default": {"x": x}, "shaped": {"x": x, "sizes": sizes}}
    return save(path, session, {name: signature(inputs, {"y": y}) for name, inputs in requests.items()})


def test_a_shape_that_a_request_replaces_is_not_known_beforehand(tmp_path):
    path = graph_with(shaped_by_a_request, tmp_path / "m")
    sizes = np.array([40, 1], np.int32)  # each of them is then multiplied with all factors
    assert_same(path, [("serving_default", {"x": X}), ("shaped", {"x": X, "sizes": sizes})], strip, fold)


def sparse_with_defaults(path, session):
    defaults = {
        "indices": tf.constant([[0, 0]], tf.int64),
        "values": tf.constant([1.0]),
        "shape": tf.constant([2, 8], tf.int64),
    }
    parts = [
        tf1.placeholder_with_default(
            t, [None] * (t.shape.rank - 1) + [t.shape[-1]] if n != "values" else [None], name=n
        )
        for n, t in defaults.items()
    ]
    sparse = tf.SparseTensor(*parts)
    y = tf.sparse.sparse_dense_matmul(sparse, weights("w", use_resource=True))
    return save(path, session, {"serving_default": signature({"s": sparse}, {"y": y})})


def test_a_sparse_input_whose_parts_have_defaults_can_still_be_fed(tmp_path):
    path = graph_with(sparse_with_defaults, tmp_path / "m")
    feeds = {"indices:0": [[0, 1], [2, 4]], "values:0": [1.5, 2.5], "shape:0": [3, 8]}
    found = []
    for model in (path, changed(path, strip)):
        with tf1.Session(graph=tf.Graph()) as session, session.graph.as_default():
            meta_graph = tf1.saved_model.load(session, ["serve"], str(model))
            found.append(session.run(meta_graph.signature_def["serving_default"].outputs["y"].name, feeds))
    assert np.array_equal(*found)


def test_an_input_whose_open_dimension_must_be_one_is_asked(tmp_path):
    """One word beside a text of many, both as [batch, words]: only of one word it can be put to its record."""

    def beside(path, session):
        text, word = (tf1.placeholder(tf.float32, [None, None], name=name) for name in ("text", "word"))
        features = tf.concat([tf.reduce_sum(text, 1, keepdims=True), tf.reshape(word, [-1, 1])], 1)
        y = tf.matmul(tf.tile(features, [1, 32]), tf.convert_to_tensor(weights("w", (64, 64))))
        return save(path, session, {"serving_default": signature({"text": text, "word": word}, {"y": y})})

    result = optimize(graph_with(beside, tmp_path / "m"), tmp_path / "out", Goal(rungs=("strip", "quarter")))
    assert [step.name for step in result.steps if step.kept] == ["strip", "quarter"]


def sparse_input(path, session):
    x = tf1.sparse_placeholder(tf.float32, [None, 300], name="x")
    y = tf.nn.softmax(tf.sparse.sparse_dense_matmul(x, weights("w", [300, 8])))
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})})


@pytest.mark.parametrize("has_samples", [True, False])
def test_a_sparse_tensor_is_asked_by_its_parts(tmp_path, has_samples):
    """Its width is that of the signature: no other can be multiplied with the weights."""
    path = graph_with(sparse_input, tmp_path / "m")
    request = {"x_indices": [[0, 3], [1, 299]], "x_values": [1.0, 2.0], "x_dense_shape": [2, 300]}
    (tmp_path / "s.jsonl").write_text(json.dumps({"inputs": request}))
    samples = str(tmp_path / "s.jsonl") if has_samples else None
    result = optimize(path, tmp_path / "out", Goal(rungs=("strip", "fold", "halve")), samples)
    assert {step.name for step in result.steps if step.kept} >= {"strip", "halve"}
    assert not any("Not asked" in note for note in result.notes)
    assert "no request of a server holds the sparse tensors that 'serving_default' takes" in str(result.notes)
    asked = {name: np.array(value, np.float32 if name == "x_values" else np.int64) for name, value in request.items()}
    for loader in LOADERS:
        with Servable(path, loader=loader) as before, Servable(tmp_path / "out", loader=loader) as after:
            answers = [servable("serving_default", asked)["y"] for servable in (before, after)]
        assert np.allclose(*answers, atol=1e-2)
