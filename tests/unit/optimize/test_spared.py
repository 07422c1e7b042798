"""Signatures beside the one that samples are for: their own weights are judged by what is made up for them."""

import json

import numpy as np
import tensorflow as tf

from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize

RNG = np.random.default_rng(0)
SPEC = [None, 16]


def values(*shape):
    return tf.Variable(RNG.normal(size=shape).astype(np.float32))


class TwoHeads(tf.Module):
    """`rank` has weights of its own and answers near ties; `double` asks the weights of `classify`."""

    def __init__(self):
        super().__init__()
        self.own, self.first, self.last = values(16, 64), values(16, 256), values(256, 200)

    @tf.function(input_signature=[tf.TensorSpec(SPEC, tf.float32, name="x")])
    def classify(self, x):
        return {"p": tf.nn.softmax(x @ self.own)}

    @tf.function(input_signature=[tf.TensorSpec(SPEC, tf.float32, name="features")])
    def rank(self, features):
        return {"scores": tf.nn.softmax(tf.nn.relu(features @ self.first) @ self.last / 10)}

    @tf.function(input_signature=[tf.TensorSpec(SPEC, tf.float32, name="halves")])
    def double(self, halves):
        return self.classify(halves * 2.0)


def optimized(tmp_path, **signatures):
    model = TwoHeads()
    chosen = {name: getattr(model, function) for name, function in signatures.items()}
    tf.saved_model.save(model, tmp_path / "m", signatures=chosen)
    rows = RNG.normal(size=(200, 16)).astype(np.float32)
    (tmp_path / "s.jsonl").write_text("".join(json.dumps({"x": row.tolist()}) + "\n" for row in rows))
    goal = Goal(rungs=("strip", "eighth"))
    return optimize(tmp_path / "m", tmp_path / "out", goal, str(tmp_path / "s.jsonl"))


def test_a_signature_without_samples_is_judged_by_its_own_records(tmp_path):
    result = optimized(tmp_path, serving_default="classify", rank="rank")
    assert not result.steps[-1].kept, result.steps[-1]
    assert "agreement" in result.steps[-1].reason
    assert "Asked with made-up records only: rank." in result.notes


def test_a_signature_of_the_same_weights_is_not(tmp_path):
    result = optimized(tmp_path, serving_default="classify", double="double")
    assert not [note for note in result.notes if "made-up" in note]
