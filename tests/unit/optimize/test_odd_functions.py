"""Models of TF2 functions that answer nothing, otherwise each time, from one branch of many, or wish for a device."""

import gzip
import json

import numpy as np
import pytest
import tensorflow as tf

from servegraph.answers import warmup_writer
from servegraph.answers.ask import Servable
from servegraph.optimize.fold import fold
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.strip import strip
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.storage import open_dir

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


class Branching(tf.Module):
    """Takes the number of a branch, and answers with it: some are constants."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="n")])
    def serve(self, n):
        branches = [
            lambda: tf.constant(0.0),
            lambda: tf.reduce_sum(self.weights),
            lambda: tf.reduce_max(self.weights @ self.weights),
        ]
        return {"y": tf.switch_case(n, branches, default=lambda: tf.constant(3.0))}


@pytest.mark.parametrize("loader", ["session", "v2"])
def test_each_branch_of_a_case_is_answered_as_before(loader, tmp_path):
    model, path = Branching(), tmp_path / "m"
    tf.saved_model.save(model, path, signatures=model.serve)
    result = optimize(path, tmp_path / "out", Goal())
    assert result.sample_rows > 1  # one number would be one branch
    with Servable(path, loader=loader) as before, Servable(tmp_path / "out", loader=loader) as after:
        for n in (0, 1, 2, 3, -1):
            want, have = (one("serving_default", {"n": np.int32(n)})["y"] for one in (before, after))
            assert want == have, n


class Drawing(tf.Module):
    """Two signatures that draw numbers, each from a sequence of its own that begins as the other's does."""

    def __init__(self):
        super().__init__()
        self.generators = [tf.random.Generator.from_seed(3) for _ in range(2)]

    def of_generator(self, number):
        @tf.function(input_signature=[tf.TensorSpec([None], name="x")])
        def serve(x):
            return {"y": x + self.generators[number].normal(tf.shape(x))}

        return serve

    def of_seed(self, _number):
        @tf.function(input_signature=[tf.TensorSpec([None], name="x")])
        def serve(x):
            return {"y": x + tf.random.normal(tf.shape(x), seed=7)}

        return serve

    def of_sampler(self, _number):
        @tf.function(input_signature=[tf.TensorSpec([None], name="x")])
        def serve(x):
            classes = tf.zeros([1, 1], tf.int64)
            drawn = tf.random.log_uniform_candidate_sampler(classes, 1, 4, True, 1000, seed=7)[0]
            return {"y": x + tf.cast(drawn[0], tf.float32)}

        return serve


@pytest.mark.parametrize("kind", ["of_generator", "of_seed", "of_sampler"])
def test_signatures_that_draw_numbers_keep_their_own_sequences(kind, tmp_path):
    model, path = Drawing(), tmp_path / "m"
    tf.saved_model.save(model, path, signatures={n: getattr(model, kind)(i) for i, n in enumerate("ab")})
    optimize(path, tmp_path / "out", Goal())

    def drawn(model):
        with Servable(model, loader="session") as servable:
            return [servable(name, {"x": np.zeros(1, np.float32)})["y"][0] for name in "abab"]

    assert drawn(path) == drawn(tmp_path / "out")


def test_signatures_that_differ_in_what_an_input_is_without_a_value_stay_apart(tmp_path):
    path, tf1 = tmp_path / "m", tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None], name="x")
        signatures = {}
        for name, factor in (("serving_default", 1.0), ("doubled", 2.0)):
            by = tf1.placeholder_with_default(factor, [])
            tensors = [{"x": x, "by": by}, {"y": x * by}]
            infos = [{k: tf1.saved_model.build_tensor_info(t) for k, t in side.items()} for side in tensors]
            signatures[name] = tf1.saved_model.build_signature_def(*infos, tf.saved_model.PREDICT_METHOD_NAME)
        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    optimize(path, tmp_path / "out", Goal())
    with tf.Graph().as_default(), tf1.Session() as session:
        found = tf1.saved_model.load(session, ["serve"], str(tmp_path / "out")).signature_def
        for name, want in (("serving_default", 3.0), ("doubled", 6.0)):
            one = found[name]
            assert session.run(one.outputs["y"].name, {one.inputs["x"].name: [3.0]}) == [want]


def test_records_with_nan_are_asked_like_others(tmp_path):
    model, path = Sampler(), tmp_path / "m"
    linear = tf.function(lambda x: {"y": x @ model.weights}, input_signature=[tf.TensorSpec([None, 64], name="x")])
    tf.saved_model.save(model, path, signatures={"serve": linear, "serving_default": linear})
    rows = np.random.default_rng(0).normal(size=(3, 64)).tolist()
    rows[1][0] = float("nan")
    (tmp_path / "s.jsonl").write_text("".join(json.dumps({"x": row}) + "\n" for row in rows))
    result = optimize(path, tmp_path / "out", Goal(), str(tmp_path / "s.jsonl"))
    assert result.sample_rows == 3  # though two signatures were asked
    assert result.golden_requests > 0
    signature = read_saved_model(open_dir(path)).meta_graphs[0].signatures["serve"]
    assert warmup_writer.write(path, "serve", signature, str(tmp_path / "s.jsonl")) == 3


def test_quantized_weights_keep_their_type(tmp_path):
    path = tmp_path / "m"
    weights = tf.constant(np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 8], name="x")])
    def serve(x):
        a, b = (tf.quantization.quantize(values, -3.0, 3.0, tf.quint8) for values in (x, weights))
        ranges = {"min_a": a.output_min, "max_a": a.output_max, "min_b": b.output_min, "max_b": b.output_max}
        product = tf.raw_ops.QuantizedMatMul(a=a.output, b=b.output, **ranges)
        return {"y": tf.quantization.dequantize(product.out, product.min_out, product.max_out)}

    tf.saved_model.save(tf.Module(), path, signatures=serve)
    result = optimize(path, tmp_path / "out", Goal(rungs=("strip", "fold")))
    assert result.steps[-1].kept, result.steps[-1].reason
