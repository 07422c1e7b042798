"""Tables that are only gathered from, in a model that computes in half precision."""

import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.errors import ModelError
from servegraph.optimize.fold import fold
from servegraph.optimize.resident import keep_resident
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.strip import strip
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


@pytest.mark.parametrize(
    "change", [fold, lambda draft: keep_resident(strip(draft)), lambda draft: keep_resident(fold(draft))]
)
@pytest.mark.parametrize("checked", ["gathered", "read"])
@pytest.mark.parametrize("use_resource", [True, False])
def test_what_must_come_before_a_gather_does(use_resource, checked, change, tmp_path):
    """A check of the ids, which TF1 lets run before the gather, or before the read of the table, or its axis alone."""
    tf1 = tf.compat.v1

    def answer(ids):
        words = tf1.get_variable("words", [ROWS, 16], use_resource=use_resource)
        check = tf1.assert_less(ids, 590)
        with tf.control_dependencies([check] if checked == "read" else []):
            table = tf.identity(words) if checked == "read" else words
        with tf.control_dependencies([check] if checked == "gathered" else []):
            rows = tf.gather(table, ids)
        return tf.cast(tf.cast(rows, tf.float16), tf.float32)

    save_tf1(tmp_path / "model", answer, tf.int32)
    draft_writer.write(change(draft_reader.read(tmp_path / "model")), tmp_path / "changed")
    with Servable(tmp_path / "changed", loader="session") as servable:
        assert servable("serving_default", {"ids": np.array([[0, 5, 589]], np.int32)})["rows"].shape == (1, 3, 16)
        with pytest.raises(ModelError, match="assertion failed"):
            servable("serving_default", {"ids": np.array([[0, 5, 590]], np.int32)})


@pytest.mark.parametrize("change", [fold, lambda draft: keep_resident(fold(draft))])
def test_ids_that_only_a_gather_of_a_tensor_takes_are_answered(change, tmp_path):
    def answer(ids):
        words = tf.compat.v1.get_variable("words", [ROWS, 16])
        rows = tf.raw_ops.GatherV2(params=words, indices=ids, axis=0)
        return tf.cast(tf.cast(rows, tf.float16), tf.float32)

    path = save_tf1(tmp_path / "model", answer, tf.int16)
    draft_writer.write(change(draft_reader.read(path)), tmp_path / "changed")
    with Servable(path, loader="session") as one, Servable(tmp_path / "changed", loader="session") as other:
        request = {"ids": np.array([[0, 5, 599]], np.int16)}
        assert np.array_equal(one("serving_default", request)["rows"], other("serving_default", request)["rows"])


def gather_of_2017(words, ids):
    return tf.raw_ops.Gather(params=words, indices=ids)


def gather_beside_names_that_are_taken(words, ids):
    rows = tf.nn.embedding_lookup(words, ids, name="rows")
    beside = tf.cast(ids[:, :, None], tf.float32, name="rows/levels")
    return rows + tf.negative(beside, name="rows/scaled")


def gather_beside_a_scatter(words, ids):
    """The scatter is of values alone, and changes no variable."""
    return tf.gather(words, ids) + tf.reduce_sum(tf.scatter_nd(ids[:1], [1.0], [ROWS, 3, 3]))


@pytest.mark.parametrize(
    ("gather", "dtype"),
    [
        (gather_of_2017, tf.float32),
        (gather_beside_names_that_are_taken, tf.float32),
        (gather_beside_a_scatter, tf.float32),
        (tf.gather, tf.float64),
    ],
)
def test_tables_stay_int8_in_memory_however_they_are_gathered_from(gather, dtype, tmp_path):
    def answer(ids):
        return gather(tf.compat.v1.get_variable("words", [ROWS, 16], dtype, use_resource=True), ids)

    path = save_tf1(tmp_path / "model", answer, tf.int32)
    draft_writer.write(keep_resident(fold(draft_reader.read(path))), tmp_path / "resident")
    assert {dtype for dtype, shape in stored(tmp_path / "resident") if shape == (ROWS, 16)} == {"int8"}
    with Servable(path, loader="session") as one, Servable(tmp_path / "resident", loader="session") as other:
        request = {"ids": np.array([[0, 2, 1]], np.int32)}
        before, after = (servable("serving_default", request)["rows"] for servable in (one, other))
        assert before.dtype == after.dtype
        np.testing.assert_allclose(before, after, atol=0.01)


def save_tf1(path, answer, dtype):
    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        ids = tf1.placeholder(dtype, [None, 3])
        rows = answer(ids)
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(session, str(path), {"ids": ids}, {"rows": rows})
    return path
