"""Graphs as TF1, imports and hand-written exports have them: each rung answers as the original did."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tests.tf1_models import answers, assert_same, changed, graph_with, save, signature, weights

from servegraph import storage
from servegraph.answers.original import ask_original
from servegraph.answers.tolerance import Tolerance
from servegraph.optimize.climb import start
from servegraph.optimize.fold import fold
from servegraph.optimize.rungs import RUNGS, Rung
from servegraph.optimize.share import share
from servegraph.optimize.statics import Statics
from servegraph.optimize.terms import Terms
from servegraph.progress import Progress
from servegraph.rewriting import draft_reader
from servegraph.rewriting.strip import strip, strip_branching
from servegraph.savedmodel.graph_reader import read_saved_model

tf1 = tf.compat.v1
ops = tf.raw_ops
X = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def loops(path, session):
    """Two loops of TF1, imported under one frame name, that differ in what is subtracted from what."""

    def imported(name, x, is_flipped):
        with tf.Graph().as_default() as graph:
            tf1.disable_control_flow_v2()
            start = tf1.placeholder(tf.float32, [None, 8], name="x")

            def step(number, a, b, c):
                return number + 1, a + b, -c, c - b if is_flipped else b - c

            a = tf1.while_loop(lambda number, *_: number < 3, step, [0, start, start / 2, start / 4])[1]
            tf.identity(a, name="y")
            tf1.enable_control_flow_v2()
        return tf.import_graph_def(graph.as_graph_def(), {"x:0": x}, ["y:0"], name=name)[0]

    signatures = {}
    for name, is_flipped in (("serving_default", False), ("flipped", True)):
        x = tf1.placeholder(tf.float32, [None, 8], name=f"{name}_x")
        signatures[name] = signature({"x": x}, {"y": imported(name, x, is_flipped) + weights(f"w_{name}", [8]) * 0.0})
    return save(path, session, signatures)


def test_loops_that_compute_otherwise_are_not_one(tmp_path):
    path = graph_with(loops, tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X}), ("flipped", {"x": X})], strip, share)


def normalized(path, session):
    """A batch norm of which a signature answers another output as well."""
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    y = tf.reshape(x @ weights("w", use_resource=True), [-1, 1, 1, 8])
    by = [weights(name, [8], number, use_resource=True) for number, name in enumerate(("scale", "offset", "mean"))]
    by.append(tf1.get_variable("variance", [8], initializer=tf1.ones_initializer(), use_resource=True))
    found = ops.FusedBatchNormV3(x=y, scale=by[0], offset=by[1], mean=by[2], variance=by[3], is_training=False)
    return save(path, session, {"serving_default": signature({"x": x}, {"y": found.y, "mean": found.batch_mean})})


def test_a_batch_norm_stays_where_its_other_outputs_are_answered(tmp_path):
    path = graph_with(normalized, tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X})], strip, fold)


def masks(path, session):
    """Masks of 40 MB each that no request changes, of which a request is answered a row."""
    x = tf1.placeholder(tf.int32, [None], name="x")
    masks = [tf.linalg.band_part(tf.fill([3200, 3200], float(number + 1)), -1, 0) for number in range(3)]
    y = sum(tf.reduce_sum(tf.gather(mask, x), 1) for mask in masks) * weights("w", [])
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})})


def test_what_would_be_large_is_not_computed_beforehand(tmp_path):
    path = graph_with(masks, tmp_path / "m")
    (graph,) = strip(draft_reader.read(path)).serving_graphs
    with draft_reader.read(path).tensors() as tensors:
        statics = Statics(graph, draft_reader.read(path).contents, tensors)
        known = [name for name in graph.nodes if statics.is_static(name)]
        found = statics.values(known)
    assert {"MatrixBandPart", "Fill"} <= {graph.nodes[name].op for name in known}
    assert not {"MatrixBandPart", "Fill"} & {graph.nodes[name].op for name in found}


def test_rungs_in_another_order_do_not_fail(tmp_path):
    path = graph_with(normalized, tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X})], fold, share)


def test_a_fingerprint_of_another_graph_is_left_behind(tmp_path):
    path = graph_with(normalized, tmp_path / "m")
    (path / "fingerprint.pb").write_bytes(b"\x08\x01")
    assert not (changed(path, fold) / "fingerprint.pb").exists()


def switched(path, session):
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    is_training = tf1.placeholder_with_default(False, [], name="is_training")
    junk = weights("junk", [300, 300], use_resource=True)
    y = tf1.cond(is_training, lambda: x * tf.reduce_sum(junk), lambda: x * weights("w", [8], use_resource=True))
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})})


def test_what_the_gate_refuses_is_tried_in_a_milder_form(tmp_path):
    """As `strip` without settling branches, where TensorFlow would fuse and round what is left in another way."""

    def wrong(graph):
        made = SignatureDef()
        made.CopyFrom(graph.signatures["serving_default"])
        made.outputs["y"].name = made.inputs["x"].name
        return replace(graph, signatures={"serving_default": made})

    path = graph_with(switched, tmp_path / "m")
    original = draft_reader.read(path)
    evidence = ask_original(path, read_saved_model(storage.open_dir(path)), original.definitions, None)
    rung = Rung("strip", "", "none", change=lambda draft: draft.with_graphs(wrong), milder=strip_branching)
    climb = start(
        original, Terms(None, Tolerance(), (rung,), climbs_all=True), tmp_path / "work", Progress("test", total=1)
    )
    climb.run(evidence)
    assert climb.steps[0].kept
    assert climb.steps[0].max_abs_diff == 0
    assert len(list((tmp_path / "work").iterdir())) == 1
    assert {rung.name for rung in RUNGS if rung.milder} == {"strip"}


def test_fold_settles_the_branches_that_strip_left(tmp_path):
    path = graph_with(switched, tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X})], strip_branching, fold)
    (graph,) = draft_reader.read(tmp_path / "changed").serving_graphs
    assert not {node.op for node in graph.nodes.values()} & {"If", "StatelessIf"}
    assert [restore.tensors[0].key for restore in graph.restores] == ["w"]


def without_epsilon(path, session):
    x = tf1.placeholder(tf.float32, [None, 4, 4, 3], name="image")
    h = tf.nn.conv2d(x, weights("k", [1, 1, 3, 16], use_resource=True), 1, "SAME")
    gamma, beta, mean = (weights(name, [16], use_resource=True) for name in ("gamma", "beta", "mean"))
    variance = tf.constant(1e-4, shape=[16])
    norm = ops.FusedBatchNormV3(
        x=h, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=0.0, is_training=False
    )
    return save(path, session, {"serving_default": signature({"image": x}, {"y": norm.y})})


def test_batch_norm_with_an_epsilon_of_0_is_folded_with_it(tmp_path):
    path = graph_with(without_epsilon, tmp_path / "m")
    image = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    want, have = (
        answers(model, [("serving_default", {"image": image})])[0]["y"] for model in (path, changed(path, fold))
    )
    assert np.abs(want - have).max() < 1e-4 * np.abs(want).max()
