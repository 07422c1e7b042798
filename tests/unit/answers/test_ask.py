"""Requests that cannot be answered, and answers of several parts."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from servegraph.answers.ask import LOADERS, Servable
from servegraph.errors import ModelError, StorageError
from servegraph.quiet_tensorflow import import_tensorflow_quietly

tf1 = tf.compat.v1


@pytest.fixture(scope="module")
def composite(tmp_path_factory):
    """A signature with ragged and sparse outputs, and one with a ragged input."""
    path = tmp_path_factory.mktemp("composite") / "m"
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def out(text):
        words = tf.strings.split(text)
        return {"words": words, "some": words.to_sparse(), "n": tf.strings.length(text), "one": text[0]}

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.int32)])
    def into(ids):
        return {"n": ids.row_lengths()}

    module.out, module.into = out, into
    tf.saved_model.save(module, str(path), signatures={"out": out, "into": into})
    return path


@pytest.fixture(scope="module")
def sparse_graph(tmp_path_factory):
    """A version 1 graph with a sparse input in one signature and a sparse output in another."""
    path = tmp_path_factory.mktemp("sparse") / "m"
    with tf.Graph().as_default(), tf1.Session() as session:
        into = tf1.sparse_placeholder(tf.float32, [None, 4])
        dense = tf1.placeholder(tf.float32, [None, 2], name="x")
        define, info = tf1.saved_model.build_signature_def, tf1.saved_model.build_tensor_info
        signatures = {
            "into": define({"s": info(into)}, {"y": info(tf1.sparse.reduce_sum(into, 1))}, "p"),
            "out": define({"x": info(dense)}, {"s": info(tf.sparse.from_dense(dense))}, "p"),
        }
        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return path


@pytest.mark.parametrize("loader", LOADERS)
def test_ragged_and_sparse_outputs_are_answered_in_parts(composite, loader):
    with Servable(composite, loader=loader) as servable:
        answer = servable("out", {"text": np.array([b"a b", b"c\0"], object)})
    assert answer["words/0"].tolist() == [b"a", b"b", b"c\0"]
    assert answer["words/1"].tolist() == [0, 2, 3]
    assert answer["some/0"].tolist() == [[0, 0], [0, 1], [1, 0]]
    assert answer["some/1"].tolist() == [b"a", b"b", b"c\0"]
    assert answer["some/2"].tolist() == [2, 2]
    assert answer["n"].tolist() == [3, 2]
    assert answer["one"].item() == b"a b"
    assert sorted(answer) == ["n", "one", "some/0", "some/1", "some/2", "words/0", "words/1"]


@pytest.mark.parametrize("loader", LOADERS)
def test_the_end_of_a_lone_text_is_kept(composite, loader):
    with Servable(composite, loader=loader) as servable:
        assert servable("out", {"text": np.array([b"c\0"], object)})["one"].item() == b"c\0"


@pytest.mark.parametrize("loader", LOADERS)
def test_a_ragged_or_sparse_input_is_an_error(composite, sparse_graph, loader):
    for path, name in [(composite, "ids"), (sparse_graph, "s")]:
        with Servable(path, loader=loader) as servable, pytest.raises(ModelError, match=r"CANNOT_CALL.*into"):
            servable("into", {name: np.zeros((1, 4), np.float32)})


@pytest.mark.parametrize("loader", LOADERS)
def test_a_sparse_output_of_version_1(sparse_graph, loader):
    with Servable(sparse_graph, loader=loader) as servable:
        answer = servable("out", {"x": np.float32([[0, 5], [7, 0]])})
    assert {name: value.tolist() for name, value in answer.items()} == {
        "s/0": [[0, 1], [1, 0]],
        "s/1": [5.0, 7.0],
        "s/2": [2, 2],
    }


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("signature", "request_", "says"),
    [
        ("nothing", {}, "there is none"),
        ("out", {"text": np.array([b"a"], object), "more": np.ones(1)}, "no inputs.*more"),
        ("out", {}, "fails"),
        ("out", {"text": np.array([1.0])}, "fails"),
        ("out", {"text": np.array([object()])}, "fails"),
    ],
)
def test_a_request_that_cannot_be_asked(composite, loader, signature, request_, says):
    with Servable(composite, loader=loader) as servable, pytest.raises(ModelError, match=f"CANNOT_CALL.*{says}"):
        servable(signature, request_)


@pytest.mark.parametrize("loader", LOADERS)
def test_of_a_failed_call_the_message_and_the_node_are_named(tmp_path, loader):
    class Rows(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
        def rows(self, ids):
            return {"row": tf.gather(tf.constant([1.0, 2.0, 3.0]), ids, name="pick")}

    module = Rows()
    tf.saved_model.save(module, tmp_path, signatures=module.rows)
    says = r"InvalidArgumentError: indices\[0\] = 4 is not in \[0, 3\) \(node pick\) Fix"
    with Servable(tmp_path, loader=loader) as servable, pytest.raises(ModelError, match=says):
        servable("serving_default", {"ids": np.array([4], np.int32)})


@pytest.mark.parametrize("loader", LOADERS)
def test_signatures_that_name_the_same_tensors_compute_the_same(tmp_path, loader):
    path = tmp_path / "m"
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None], name="x")
        of = {
            name: tf1.saved_model.predict_signature_def({"x": x}, {"y": x * by}) for name, by in (("one", 1), ("b", 2))
        }
        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], {**of, "again": of["one"]})
        builder.save()
    with Servable(path, loader=loader) as servable:
        assert servable.computes_same("one", "again")
        assert not servable.computes_same("one", "b")


@pytest.mark.parametrize("loader", LOADERS)
def test_a_pipe_in_the_place_of_a_vocabulary_is_refused(loader, tmp_path):
    """TensorFlow would wait for its other end."""
    model = shutil.copytree(Path(__file__).parents[2] / "real_models/module", tmp_path / "m")
    (model / "assets/vocabulary.txt").unlink()
    os.mkfifo(model / "assets/vocabulary.txt")
    with pytest.raises(StorageError) as refused:
        Servable(model, loader=loader)
    assert refused.value.code == "NOT_A_FILE"


def test_a_damaged_fingerprint_prints_no_traceback(tmp_path, capfd):
    """TensorFlow goes on without it, and logs its own error with the frames."""
    model = shutil.copytree(Path(__file__).parents[2] / "real_models/keras_dense", tmp_path / "m")
    (model / "fingerprint.pb").write_bytes(b"xx")
    import_tensorflow_quietly()
    with Servable(model, loader="v2"):
        pass
    assert "Traceback" not in capfd.readouterr().err
