"""Vocabularies become shorter only where their ids pick rows, and what is forgotten is answered like any unknown word."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.errors import InputError
from servegraph.optimize.fold import fold
from servegraph.optimize.goal import Goal, goal_of
from servegraph.optimize.optimize import optimize
from servegraph.optimize.vocabulary import vocabularies
from servegraph.rewriting import draft_reader
from servegraph.rewriting.strip import strip
from servegraph.savedmodel.bundle_reader import BundleReader

WORDS = [f"w{number:03d}" for number in range(900)]
RUNGS = ("strip", "fold", "trim")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "model"
    keras.utils.set_random_seed(1)
    vectorize = keras.layers.TextVectorization(vocabulary=WORDS, output_sequence_length=4)
    layers = [keras.Input((1,), dtype="string", name="text"), vectorize]
    layers += [keras.layers.Embedding(vectorize.vocabulary_size(), 32), keras.layers.GlobalAveragePooling1D()]
    keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")]).export(path, verbose=False)
    return path


@pytest.fixture
def samples(tmp_path):
    lines = [{"keras_tensor": ["w001 w002 w899"]}, {"keras_tensor": ["w002 never"]}, {"keras_tensor": ["w002"]}]
    key = "text"
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps({key: next(iter(line.values()))}) + "\n" for line in lines))
    return str(file)


def answers(path, *said):
    with Servable(path, loader="session") as servable:
        (output,) = servable("serving_default", {"text": np.array([[text] for text in said], object)}).values()
        return output


def tables(path):
    with BundleReader(storage.open_dir(path)) as reader:
        return [entry.shape for entry in reader.entries.values() if len(entry.shape) == 2 and entry.shape[1] == 32]


def test_words_that_were_seen_answer_as_before_and_others_as_unknown_ones(texts, samples, tmp_path):
    result = optimize(texts, tmp_path / "out", Goal(rungs=RUNGS), samples)
    step = result.steps[-1]
    assert step.kept, step.reason
    assert step.agreement == 1
    assert tables(texts)[0] == (902, 32)
    assert tables(tmp_path / "out") == [(5, 32)]  # mask, unknown, and three words
    said = ["w001 w002 w899", "w002", "never seen", ""]
    np.testing.assert_allclose(answers(tmp_path / "out", *said), answers(texts, *said), rtol=1e-5)
    np.testing.assert_allclose(answers(tmp_path / "out", "w500 w002"), answers(texts, "unknown w002"), rtol=1e-5)


def test_a_word_must_be_seen_as_often_as_asked(texts, samples, tmp_path):
    result = optimize(
        texts, tmp_path / "out", Goal(rungs=RUNGS, min_count=3, tolerance=goal_of(min_agreement=0).tolerance), samples
    )
    assert result.steps[-1].kept
    assert tables(tmp_path / "out") == [(3, 32)]
    with pytest.raises(InputError):
        goal_of(min_count=0)


def test_a_table_that_is_kept_keeps_its_vocabulary(texts, samples, tmp_path):
    key = "*embedding*"
    result = optimize(texts, tmp_path / "out", Goal(rungs=RUNGS, keep=(key,)), samples)
    assert result.steps[-1].name == "trim"
    assert tables(tmp_path / "out") == [(902, 32)]


def test_made_up_samples_shorten_nothing(texts, tmp_path):
    result = optimize(texts, tmp_path / "out", Goal(rungs=RUNGS))
    assert "give --samples" in result.steps[-1].reason
    assert tables(tmp_path / "out") == [(902, 32)]


class Answering(tf.Module):
    """Ids that pick rows, and do something else besides."""

    def __init__(self, also):
        super().__init__()
        keys, ids = tf.constant(["a", "b", "c"]), tf.constant([1, 2, 3], tf.int64)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, ids), 0)
        self.rows = tf.Variable(tf.random.stateless_normal([4, 8], [1, 2]))
        self.also = also

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def serve(self, word):
        ids = self.table.lookup(word)
        return {"row": tf.gather(self.rows, ids), "also": self.also(self, ids)}


@pytest.mark.parametrize(
    ("also", "count"),
    [
        (lambda _, ids: tf.cast(tf.equal(ids, 0), tf.float32), 1),
        (lambda _, ids: tf.cast(tf.less(ids, 1), tf.float32), 1),
        (lambda _, ids: tf.cast(tf.greater(1, tf.cast(ids, tf.int32)), tf.float32), 1),
        (lambda _, ids: tf.cast(tf.shape(ids), tf.float32), 1),
        (lambda model, ids: tf.gather(model.rows, tf.concat([ids, [0]], 0)), 1),
        (lambda _, ids: ids, 0),
        (lambda _, ids: tf.one_hot(ids, 4), 0),
        (lambda _, ids: tf.cast(tf.equal(ids, 2), tf.float32), 0),
        (lambda _, ids: tf.cast(tf.greater(ids, 1), tf.float32), 0),
        (lambda _, ids: tf.cast(tf.less(1, tf.cast(ids, tf.int32)), tf.float32), 0),
        (lambda _, ids: ids + 1, 0),
        (lambda model, ids: tf.gather(model.rows, tf.concat([ids, [3]], 0)), 0),
        (lambda model, ids: tf.gather(model.rows, tf.minimum(tf.shape(ids), 3)), 0),
        (lambda model, _: tf.cast(model.table.size(), tf.float32), 0),
    ],
    ids=[
        "mask",
        "below the first",
        "first above",
        "shape",
        "beside a mask",
        "answered",
        "one-hot",
        "compared",
        "above the first",
        "first below",
        "computed",
        "beside an id",
        "picked by others",
        "size",
    ],
)
def test_a_vocabulary_stays_where_its_ids_do_more_than_pick_rows(tmp_path, also, count):
    model = Answering(also)
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.serve)
    (graph,) = fold(strip(draft_reader.read(tmp_path / "model"))).serving_graphs
    assert len(vocabularies(graph, tmp_path / "model")) == count


class FromFile(tf.Module):
    """Ids are the lines of a file, the first of which is what all unknown words are."""

    def __init__(self, file):
        super().__init__()
        columns = (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
        self.table = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(file), *columns), 0)
        self.rows = tf.Variable(tf.random.stateless_normal([901, 32], [1, 2]))

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.string, name="text")])
    def serve(self, text):
        return {"row": tf.gather(self.rows, self.table.lookup(text[:, 0]))}


@pytest.mark.parametrize("loader", ["session", "v2"])
def test_a_vocabulary_in_a_file_moves_into_the_graph_when_it_is_shortened(loader, tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(["[UNK]", *WORDS]) + "\n")
    model = FromFile(tmp_path / "words.txt")
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.serve)
    lines = [json.dumps({"text": [word]}) + "\n" for word in ("w003", "w899", "never")]
    (tmp_path / "samples.jsonl").write_text("".join(lines))
    result = optimize(tmp_path / "model", tmp_path / "out", Goal(rungs=RUNGS), str(tmp_path / "samples.jsonl"))
    assert result.steps[-1].kept, result.steps[-1].reason
    assert tables(tmp_path / "out") == [(3, 32)]
    assert not (tmp_path / "out" / "assets" / "words.txt").exists()
    with Servable(tmp_path / "model", loader=loader) as before, Servable(tmp_path / "out", loader=loader) as after:
        for said, meant in (("w003", "w003"), ("w899", "w899"), ("never", "never"), ("w004", "never")):
            asked, expected = ({"text": np.array([[word]], object)} for word in (said, meant))
            answer, of_original = after("serving_default", asked), before("serving_default", expected)
            np.testing.assert_array_equal(answer["row"], of_original["row"])


@pytest.mark.parametrize("content", ["[UNK]\r\nw000\r\nw001\r\n", None])
def test_a_vocabulary_in_a_file_that_reads_otherwise_stays(content, tmp_path):
    (tmp_path / "words.txt").write_bytes((content or "[UNK]\nw000\nw001\n").encode())
    model = FromFile(tmp_path / "words.txt")
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.serve)
    (graph,) = fold(strip(draft_reader.read(tmp_path / "model"))).serving_graphs
    assert len(vocabularies(graph, tmp_path / "model")) == (content is None)


class Twice(tf.Module):
    """Two signatures that look words up in one table; what they take has names of its own."""

    def __init__(self):
        super().__init__()
        ids = tf.range(1, len(WORDS) + 1, dtype=tf.int64)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(WORDS), ids), 0)
        self.rows = tf.Variable(tf.random.stateless_normal([901, 32], [1, 2]))

    def taking(self, name):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=name)])
        def serve(word):
            return {"embedding": tf.gather(self.rows, self.table.lookup(word))}

        return serve


def twice(path, *names):
    model = Twice()
    signatures = dict(zip(("serving_default", "second"), map(model.taking, names), strict=True))
    tf.saved_model.save(model, str(path), signatures=signatures)
    return path


def test_the_words_that_any_signature_looks_up_stay(tmp_path):
    path, file = twice(tmp_path / "model", "word", "other"), tmp_path / "s.jsonl"
    words = {"serving_default": {"word": WORDS[:20]}, "second": {"other": WORDS[500:520]}}
    asked = zip(words["serving_default"]["word"], words["second"]["other"], strict=True)
    file.write_text("".join(json.dumps({"word": word, "other": other}) + "\n" for word, other in asked))
    result = optimize(path, tmp_path / "out", Goal(rungs=("strip", "fold", "trim")), str(file))
    assert result.steps[-1].kept, result.steps[-1].reason
    with Servable(path, loader="session") as before, Servable(tmp_path / "out", loader="session") as after:
        for name, request in words.items():
            arrays = {key: np.array(values, object) for key, values in request.items()}
            want, have = (one(name, arrays)["embedding"] for one in (before, after))
            assert np.array_equal(want, have), name


def test_a_vocabulary_stays_that_a_signature_without_samples_looks_up(tmp_path):
    path, file = twice(tmp_path / "model", "word", "other"), tmp_path / "s.jsonl"
    file.write_text("".join(json.dumps({"word": word}) + "\n" for word in WORDS[:20]))
    result = optimize(path, tmp_path / "out", Goal(rungs=("strip", "fold", "trim")), str(file))
    assert not result.steps[-1].kept
    assert "signatures without samples" in result.steps[-1].reason
