"""Tables that are only gathered from, in a model that computes in half precision."""

import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.optimize.fold import fold
from servegraph.optimize.resident import keep_resident
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.savedmodel.bundle_reader import BundleReader

ROWS = 600
IDS = {"ids": np.array([[0, 5, 599], [7, 7, 1]], np.int32)}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def save(path, gather, dtype, exact=None, width=16):
    """A table that is gathered from and cast; with `exact` used in float32 as well: `gathered`, `read` or `answered`."""
    made = tf.Module()
    made.words = tf.Variable(np.random.default_rng(0).normal(size=(ROWS, width)).astype(np.float32), name="words")

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.int32, name="ids")])
    def serve(ids):
        rows = gather(made.words, ids)
        found = {"mean": tf.cast(tf.reduce_mean(tf.cast(rows, dtype), axis=1), tf.float32)}
        if exact == "gathered":
            found["rows"] = rows
        if exact == "read":
            found["next"] = found["mean"] @ tf.transpose(made.words)
        if exact == "answered":
            found["table"] = made.words.read_value()
        return found

    tf.saved_model.save(made, str(path), signatures={"serving_default": serve})
    return path


def answers(path, loader="session"):
    with Servable(path, loader=loader) as servable:
        return servable("serving_default", IDS)


def stored(path):
    with BundleReader(storage.open_dir(path)) as reader:
        return sorted((entry.dtype, entry.shape) for entry in reader.entries.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("gather", [tf.nn.embedding_lookup, tf.gather])
def test_what_is_cast_after_it_was_gathered_is_held_so(gather, dtype, tmp_path):
    path = save(tmp_path / "model", gather, dtype)
    draft_writer.write(fold(draft_reader.read(path)), tmp_path / "folded")
    assert stored(tmp_path / "folded") == [(dtype, (600, 16))]
    for loader in ("session", "v2"):
        assert np.array_equal(answers(tmp_path / "folded", loader)["mean"], answers(path)["mean"])


@pytest.mark.parametrize("exact", ["gathered", "read", "answered"])
def test_a_table_that_is_used_in_float32_too_stays(exact, tmp_path):
    path = save(tmp_path / "model", tf.gather, "bfloat16", exact)
    draft_writer.write(fold(draft_reader.read(path)), tmp_path / "folded")
    assert stored(tmp_path / "folded") == [("float32", (600, 16))]
    for name, values in answers(path).items():
        assert np.array_equal(answers(tmp_path / "folded")[name], values)


@pytest.mark.parametrize("width", [16, ROWS])
def test_it_may_still_stay_int8_in_memory(width, tmp_path):
    path = save(tmp_path / "model", tf.gather, "bfloat16", width=width)
    draft_writer.write(keep_resident(fold(draft_reader.read(path))), tmp_path / "resident")
    assert {dtype for dtype, shape in stored(tmp_path / "resident") if shape == (ROWS, width)} == {"int8"}
    for loader in ("session", "v2"):
        off = np.abs(answers(tmp_path / "resident", loader)["mean"] - answers(path)["mean"]).max()
        assert 0 < off < 0.05


def test_a_table_that_is_answered_whole_is_held_as_it_is(tmp_path):
    path = graph_with_a_table_as_output(tmp_path / "model")
    draft_writer.write(keep_resident(fold(draft_reader.read(path))), tmp_path / "resident")
    assert np.array_equal(answers(tmp_path / "resident")["table"], answers(path)["table"])


def graph_with_a_table_as_output(path):
    """In TF1 a signature can name the read of a variable itself."""
    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        words = tf1.get_variable("words", [ROWS, 16], use_resource=True)
        ids = tf1.placeholder(tf.int32, [None, 3])
        mean = tf.cast(tf.reduce_mean(tf.cast(tf.gather(words, ids), tf.float16), 1), tf.float32)
        table = tf.raw_ops.ReadVariableOp(resource=words.handle, dtype=tf.float32)
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(session, str(path), {"ids": ids}, {"mean": mean, "table": table})
    return path
