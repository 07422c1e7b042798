"""Models of TF2 functions that answer nothing, answer otherwise each time, or wish for a device."""

import gzip
import json

import numpy as np
import pytest
import tensorflow as tf

from servegraph.answers.ask import Servable
from servegraph.optimize.fold import fold
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.strip import strip
from servegraph.savedmodel.layout import GOLDEN_FILE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class StatelessPolicy(tf.Module):
    """As TF-Agents saves a policy without state: two of its signatures answer nothing."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 64])])
    def action(self, observation):
        return {"action": observation @ self.weights}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="batch_size")])
    def get_initial_state(self, batch_size):
        return {}

    @tf.function(input_signature=[])
    def get_metadata(self):
        return {}


def test_signatures_that_answer_nothing_stay(tmp_path):
    policy, path = StatelessPolicy(), tmp_path / "m"
    signatures = {"action": policy.action, "state": policy.get_initial_state, "metadata": policy.get_metadata}
    tf.saved_model.save(policy, path, signatures=signatures)
    result = optimize(path, tmp_path / "out", Goal(rungs=("strip", "quarter")))
    assert [step.name for step in result.steps if step.kept] == ["strip", "quarter"]
    for loader in ("session", "v2"):
        servable = Servable(tmp_path / "out", loader=loader)
        assert servable.signatures == ["action", "metadata", "state"]
        assert servable("state", {"batch_size": np.int32(2)}) == {}
        assert servable("metadata", {}) == {}


class Sampler(tf.Module):
    """Draws in a loop, counts its calls, and has two signatures that compute the same."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))
        self.calls = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 64], name="x")])
    def sample(self, x):
        def step(i, y):
            return i + 1, y @ self.weights / 8.0 + tf.random.normal(tf.shape(y))

        steps, y = tf.while_loop(lambda i, y: i < 3, step, (0, x))
        tf.debugging.assert_greater(steps, 2)
        return {"mean": x @ self.weights, "drawn": y}

    @tf.function(input_signature=[tf.TensorSpec([None, 64], name="x")])
    def count(self, x):
        return {"mean": x @ self.weights, "calls": self.calls.assign_add(1.0)}


@pytest.mark.parametrize(("name", "varying"), [("sample", "drawn"), ("count", "calls")])
def test_models_that_draw_numbers_or_count_their_calls_are_compared(name, varying, tmp_path):
    module, path = Sampler(), tmp_path / "m"
    function = getattr(module, name)
    tf.saved_model.save(module, path, signatures={"serve": function, "serving_default": function})
    result = optimize(path, tmp_path / "out", Goal(rungs=("strip", "fold", "quarter")))
    assert [step.name for step in result.steps if step.kept] == ["strip", "fold", "quarter"]
    assert result.steps[1].max_abs_diff < 1e-5
    assert f"Answered otherwise from call to call, and not in the golden requests: {varying}." in result.notes
    lines = gzip.decompress((tmp_path / "out" / GOLDEN_FILE).read_bytes()).splitlines()
    assert result.golden_requests == len(lines) > 0
    assert {*json.loads(lines[0])["outputs"]} == {"mean"}


def test_a_gpu_that_a_function_wishes_for_is_no_condition_once_it_is_inlined(tmp_path):
    class OnGpu(tf.Module):
        def __init__(self):
            super().__init__()
            self.weights = tf.Variable(np.ones((8, 8), np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 8])])
        def double(self, x):
            with tf.device("/device:GPU:0"):
                return {"y": x @ self.weights}

    module, path = OnGpu(), tmp_path / "m"
    tf.saved_model.save(module, path, signatures=module.double)
    draft_writer.write(fold(strip(draft_reader.read(path))), tmp_path / "changed")
    with Servable(tmp_path / "changed", loader="session") as servable:
        assert servable("serving_default", {"x": np.ones((5, 8), np.float32)})["y"].tolist() == [[8.0] * 8] * 5
