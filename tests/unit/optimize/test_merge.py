"""Equal operations become one; what can differ between two calls, or is named from outside, does not."""

import numpy as np
import tensorflow as tf

from servegraph.answers.ask import Servable
from servegraph.optimize.merge import merge_equal
from servegraph.optimize.optimize import Goal, optimize
from servegraph.rewriting import draft_reader
from servegraph.rewriting.meta_graph import keep_what_serves

tf1 = tf.compat.v1


def saved(path):
    """Two equal sums of two equal constants, two random draws, two placeholders, and a loop."""
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        one, other = (tf1.placeholder(tf.float32, [None], name=name) for name in ("one", "other"))
        sums = [tf.exp(one + tf.constant(2.0)) for _ in range(2)]
        draws = [tf.random.uniform([1]) for _ in range(2)]
        tf1.disable_control_flow_v2()
        looped = tf1.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x * 2), (tf.constant(0), other))[1]
        tf1.enable_control_flow_v2()
        outputs = {"product": sums[0] * sums[1], "draws": draws[0] - draws[1], "looped": looped, "kept": sums[1]}
        signature = tf1.saved_model.predict_signature_def({"one": one, "other": other}, outputs)
        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


def test_equal_operations_are_one_and_answers_are_the_same_bits(tmp_path):
    saved(tmp_path / "model")
    (before,) = draft_reader.read(tmp_path / "model").serving_graphs
    after = keep_what_serves(merge_equal(keep_what_serves(before)))
    count = {
        op: [sum(node.op == op for node in graph.nodes.values()) for graph in (before, after)]
        for op in ("Exp", "AddV2", "RandomUniform", "Placeholder", "NextIteration")
    }
    # Both exponentials stay: one of them is an output. All that they are computed from is one.
    assert count["Exp"][1] == 2
    assert count["AddV2"][1] == count["AddV2"][0] - 1
    for op in ("RandomUniform", "Placeholder", "NextIteration"):
        assert count[op][0] == count[op][1] > 0
    optimize(tmp_path / "model", tmp_path / "out", Goal(rungs=("strip", "fold")))
    request = {"one": np.array([0.5, 1], np.float32), "other": np.array([3, 4], np.float32)}
    with Servable(tmp_path / "model") as model, Servable(tmp_path / "out") as out:
        want, have = model("serving_default", request), out("serving_default", request)
    for name in ("product", "kept", "looped"):
        assert np.array_equal(want[name], have[name])
    assert have["draws"] != 0
