"""How much a weight matters is measured with all others whole."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.evidence import Question
from servegraph.answers.samples import Samples
from servegraph.optimize import sensitivity
from servegraph.optimize.goal import Goal
from servegraph.optimize.int4 import plan_int4
from servegraph.optimize.optimize import optimize
from servegraph.optimize.rungs import planned
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.forms import plan_half
from servegraph.rewriting.int8 import plan_int8
from servegraph.rewriting.weights import loosen, weights_of
from servegraph.savedmodel.bundle_reader import BundleReader

SIZE = 96
MATTERS = {"a": 1e-3, "b": 1.0, "c": 1e-3, "d": 0.1}


def save(path, size):
    """Save four weights alike in size and noise, of which the answers depend on one far more than on another."""
    draw = np.random.default_rng(0)
    made = tf.Module()
    for name in MATTERS:
        setattr(made, name, tf.Variable(draw.normal(size=(size, SIZE)).astype(np.float32), name=name))

    @tf.function(input_signature=[tf.TensorSpec([None, size], tf.float32, name="x")])
    def serve(x):
        return {"y": tf.add_n([x @ getattr(made, name) * scale for name, scale in MATTERS.items()])}

    tf.saved_model.save(made, str(path), signatures=serve)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("four") / "model", SIZE)


def asked(rows, size):
    inputs = {"x": np.random.default_rng(1).normal(size=(rows, size)).astype(np.float32)}
    return Question(("serve",), "session", "serving_default", Samples(inputs, rows, generated=True), [])


@pytest.mark.parametrize(("plan", "size", "tensors"), [(plan_int8, SIZE, 8), (plan_int4, 8000, 40)])
def test_each_alone(plan, size, tensors, tmp_path):
    """The second are large enough to be turned back in blocks, five each."""
    loose = loosen(draft_reader.read(save(tmp_path / "model", size)))
    with loose.tensors() as reader:
        forms = planned(loose, plan, reader)
    draft_writer.write(loose, tmp_path / "loose")
    draft_writer.write(replace(loose, forms=forms), tmp_path / "narrow")
    with BundleReader(storage.open_dir(tmp_path / "narrow")) as written:
        assert len(written.entries) == tensors
    found = sensitivity.measure(tmp_path / "loose", tmp_path / "narrow", list(weights_of(loose)), asked(64, size))
    distances = {key.split("/")[0]: distance for key, distance in found.items()}
    for name, scale in MATTERS.items():
        assert distances[name] == pytest.approx(distances["b"] * scale, rel=0.5)


def test_a_budget_is_spent_on_what_matters(model, tmp_path):
    whole = SIZE * SIZE * 4
    result = optimize(model, tmp_path / "out", Goal(budget_bytes=whole + 3 * whole // 2 + 8_000))
    assert result.fits
    with BundleReader(storage.open_dir(tmp_path / "out")) as reader:
        stored = [entry.dtype for _, entry in sorted(reader.entries.items())]
    assert stored == ["float16", "float32", "float16", "float16"]


@pytest.mark.parametrize(
    ("shape", "products", "rows"),
    [((10,), 1000, 256), ((224, 224, 3), 1000, 7), ((10,), 100_000_000, 10), ((2000, 2000), 10**9, 4)],
)
def test_few_samples_where_one_takes_long(shape, products, rows):
    question = Question(("serve",), "session", "y", Samples({"x": np.broadcast_to(0.0, (300, *shape))}, 300, False), [])
    assert len(sensitivity._probe(question, products)["x"]) == rows


def moved(made, serve, inputs, tmp_path):
    """Return how far each weight of a module moves its answers when it is halved."""
    tf.saved_model.save(made, str(tmp_path / "m"), signatures=serve)
    loose = loosen(draft_reader.read(tmp_path / "m"))
    with loose.tensors() as tensors:
        forms = planned(loose, plan_half, tensors)
    draft_writer.write(loose, tmp_path / "loose")
    draft_writer.write(replace(loose, forms=forms), tmp_path / "narrow")
    rows = len(next(iter(inputs.values())))
    question = Question(("serve",), "session", "serving_default", Samples(inputs, rows, generated=True), [])
    return sensitivity.measure(tmp_path / "loose", tmp_path / "narrow", list(weights_of(loose)), question)


def test_answers_of_other_sizes_and_ragged_ones(tmp_path):
    """What a detector finds is another number of boxes with other weights: all of them have changed."""
    made = tf.Module()
    made.edge = tf.Variable(np.linspace(0, 1, 3_001, dtype=np.float32)[1:], name="edge")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(x):
        edge = 1e3 * tf.reduce_sum(made.edge - tf.round(made.edge * 64) / 64)
        found = tf.boolean_mask(x, edge + x > 0)
        return {"found": found, "ragged": tf.RaggedTensor.from_row_lengths(found, [tf.size(found)])}

    (distance,) = moved(made, serve, {"x": np.linspace(-300, 300, 50, dtype=np.float32)}, tmp_path).values()
    assert 0.9 < distance <= 1


def test_a_table_that_is_restored_beside_the_weights(tmp_path):
    """A dense hash table is made of the keys that it must not hold."""
    made = tf.Module()
    made.table = tf.lookup.experimental.DenseHashTable(tf.string, tf.int64, -1, "<empty>", "<deleted>")
    made.table.insert(["a", "b"], tf.constant([1, 2], tf.int64))
    made.rows = tf.Variable(np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32), name="rows")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def serve(word):
        return {"row": tf.gather(made.rows, made.table.lookup(word) + 1)}

    (distance,) = moved(made, serve, {"word": np.array([b"a", b"b", b"c"], object)}, tmp_path).values()
    assert 0 < distance < 1e-3
