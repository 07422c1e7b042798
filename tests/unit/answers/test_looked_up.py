"""Made-up requests hold what a model looks up: keys of its tables, ids of its embeddings' rows."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from servegraph import storage
from servegraph.answers.encodings import encodings
from servegraph.answers.generated import generate
from servegraph.answers.made_up import ExampleSpec, Feature, Known
from servegraph.answers.original import ask_original
from servegraph.answers.samples import InputSpec
from servegraph.savedmodel.graph_reader import read_saved_model

tf1 = tf.compat.v1
WORDS = [f"w{number}".encode() for number in range(200)]
TEXT = tf.TensorSpec([None], tf.string, name="x")
IDS = tf.TensorSpec([None, 4], tf.int64, name="x")


class Model(tf.Module):
    """Looks up in a table of constants, a table of a file, a table of numbers, and two embedding tables."""

    def __init__(self, file):
        super().__init__()
        ids = tf.range(len(WORDS), dtype=tf.int64)
        constants = tf.lookup.KeyValueTensorInitializer(tf.constant(WORDS), ids)
        self.words = tf.lookup.StaticHashTable(constants, -1)
        self.lines = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(file), *_WHOLE), -1)
        numbers = tf.lookup.KeyValueTensorInitializer(ids * 7 + 1000, ids)
        self.numbers = tf.lookup.StaticHashTable(numbers, -1)
        self.rows = tf.Variable(tf.random.normal([5000, 3], seed=1))
        self.few = tf.Variable(tf.random.normal([30, 3], seed=2))

    def one_word(self, x):
        return {"y": self.words.lookup(x)}

    def of_a_file(self, x):
        return {"y": self.lines.lookup(tf.strings.lower(x))}

    def sentence(self, x):
        return {"y": self.words.lookup(tf.strings.split(x).to_tensor())}

    def must_be_known(self, x):
        found = self.words.lookup(x)
        with tf.control_dependencies([tf.debugging.assert_non_negative(found)]):
            return {"y": tf.identity(found)}

    def number(self, x):
        return {"y": self.numbers.lookup(x)}

    def row(self, x):
        return {"y": tf.reduce_mean(tf.gather(self.rows, tf.cast(tf.reshape(x, [-1, 4]), tf.int32)), 1)}

    def padded(self, x):
        return {"y": tf.reduce_mean(tf.gather(self.rows, tf.pad(x, [[0, 0], [0, 3]], constant_values=1)), 1)}

    def of_floats(self, x):
        return {"y": tf.reduce_mean(tf.gather(self.rows, tf.cast(x, tf.int32)), 1)}

    def rows_of_two(self, x):
        return {"y": tf.gather(self.rows, x) + tf.gather(self.few, x)}

    def computed(self, x):
        return {"y": tf.gather(self.few, x * 9 % 30)}

    def features(self, x):
        wanted = {"word": tf.io.FixedLenFeature([], tf.string), "id": tf.io.FixedLenFeature([], tf.int64)}
        parsed = tf.io.parse_example(x, wanted)
        return {"y": self.words.lookup(parsed["word"]), "row": tf.gather(self.rows, parsed["id"])}


_WHOLE = (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
SPREAD = np.unique(np.linspace(0, 199, 64).astype(int))
KEYS = tuple(WORDS[number] for number in SPREAD)
ROWS = Known(tuple(np.unique(np.linspace(0, 4999, 64).astype(int)).tolist()))
CASES = {
    "one_word": (TEXT, Known(KEYS)),
    "of_a_file": (TEXT, Known(KEYS)),
    "sentence": (TEXT, Known(KEYS, several=True)),
    "must_be_known": (TEXT, Known(KEYS)),
    "number": (IDS, Known(tuple((SPREAD * 7 + 1000).tolist()))),
    "row": (IDS, ROWS),
    "padded": (IDS, ROWS),
    "of_floats": (tf.TensorSpec([None, 4], tf.float32, name="x"), ROWS),
    "rows_of_two": (IDS, Known(tuple(range(30)))),
    "computed": (IDS, None),
    "features": (TEXT, ExampleSpec({"word": Feature("string", 1, Known(KEYS)), "id": Feature("int64", 1, ROWS)})),
}


def ask(path):
    """Return what is found for the input x, and what the original is asked."""
    (meta_graph,) = parse_saved_model(str(path)).meta_graphs
    graph = read_saved_model(storage.open_dir(path))
    found = encodings(meta_graph, "serving_default", path).get("x")
    asked = ask_original(path, graph, [meta_graph], None)
    assert not asked.silent
    return found, asked.main


@pytest.mark.parametrize("name", CASES)
def test_what_is_looked_up_is_asked(tmp_path, name):
    file = tmp_path / "words.txt"
    file.write_bytes(b"\n".join(WORDS) + b"\n")
    model = Model(file)
    spec, wanted = CASES[name]
    serve = tf.function(getattr(model, name), input_signature=[spec])
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=serve)
    file.unlink()
    found, question = ask(tmp_path / "m")
    assert found == wanted
    answers = np.concatenate([answer["y"] for answer in question.answers])
    if name == "must_be_known":
        assert answers.min() >= 0
    if wanted is not None:
        assert len(np.unique(answers)) > 8


def test_a_graph_of_version_1_with_a_file(tmp_path):
    file = tmp_path / "words.txt"
    file.write_bytes(b"\n".join(WORDS))
    with tf.Graph().as_default(), tf1.Session() as session:
        text = tf1.placeholder(tf.string, [None])
        table = tf1.lookup.StaticHashTable(tf1.lookup.TextFileInitializer(str(file), *_WHOLE), -1)
        found = table.lookup(text)
        session.run(tf1.tables_initializer())
        builder = tf1.saved_model.Builder(str(tmp_path / "m"))
        signature = tf1.saved_model.predict_signature_def({"x": text}, {"y": found})
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            assets_collection=tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS),
            main_op=tf1.tables_initializer(),
        )
        builder.save()
    found, question = ask(tmp_path / "m")
    assert found == Known(KEYS)
    answers = np.concatenate([answer["y"] for answer in question.answers])
    assert len(np.unique(answers)) > 8


def test_an_unknown_word_is_among_them_unless_it_must_be_known():
    specs, found = {"x": InputSpec("string", (None,))}, {"x": Known((b"a", b"b"))}
    little, some, most = (generate(specs, 64, encodings=found, care=c) for c in ("little", "some", "most"))
    assert not set(little.inputs["x"]) <= {b"a", b"b"}
    assert set(some.inputs["x"]) == {b"a", b"b"}
    assert set(most.inputs["x"]) == {b"a"}
