"""Made-up bytes for every way that a graph decodes text, accepted by the graph itself."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.answers.encodings import encodings
from servegraph.answers.generated import generate
from servegraph.answers.made_up import (
    Base64Text,
    CsvText,
    ExampleSpec,
    Feature,
    ImageBytes,
    NumberText,
    SequenceExampleSpec,
    SoundBytes,
)
from servegraph.answers.samples import InputSpec
from servegraph.savedmodel.graph_reader import read_saved_model

tf1 = tf.compat.v1
TEXT = tf.TensorSpec([None], tf.string, name="text")
FEATURES = {
    "age": tf.io.FixedLenFeature([], tf.float32),
    "name": tf.io.FixedLenFeature([2], tf.string),
    "image": tf.io.FixedLenFeature([], tf.string),
    "ids": tf.io.VarLenFeature(tf.int64),
    "pairs": tf.io.FixedLenSequenceFeature([3], tf.int64, allow_missing=True),
    "words": tf.io.RaggedFeature(tf.string),
}


def example_v2(text):
    parsed = tf.io.parse_example(text, FEATURES)
    pixels = tf.map_fn(
        lambda one: tf.reduce_mean(tf.cast(tf.io.decode_jpeg(one, 3), tf.float32)), parsed["image"], tf.float32
    )
    return {
        "y": parsed["age"] + pixels,
        "n": tf.sparse.reduce_sum(parsed["ids"], 1),
        "w": parsed["words"].row_lengths(),
    }


def example_one_by_one(text):
    def parse(one):
        return tf.io.parse_single_example(one, {k: FEATURES[k] for k in ("age", "ids")})["age"]

    return {"y": tf.map_fn(parse, text, tf.float32)}


def image(text):
    def decode(one):
        return tf.image.resize(tf.io.decode_image(one, 3, expand_animations=False), [8, 8])

    return {"y": tf.reduce_mean(tf.map_fn(decode, text, tf.float32), [1, 2, 3])}


def base64_image(text):
    return {"y": tf.map_fn(lambda one: tf.shape(tf.io.decode_png(tf.io.decode_base64(one)))[0], text, tf.int32)}


def csv(text):
    _, age, word = tf.io.decode_csv(text, [[0], [0.0], [""]], ";")
    return {"age": age, "length": tf.strings.length(word)}


def sequences(text):
    context = {"age": tf.io.FixedLenFeature([2], tf.float32), "words": tf.io.VarLenFeature(tf.string)}
    steps = {
        "pixels": tf.io.FixedLenSequenceFeature([3], tf.float32),
        "image": tf.io.FixedLenSequenceFeature([], tf.string),
        "ids": tf.io.VarLenFeature(tf.int64),
        "counts": tf.io.RaggedFeature(tf.int64),
    }
    whole, each, _ = tf.io.parse_sequence_example(text, context, steps)
    decoded = tf.map_fn(
        lambda one: tf.reduce_mean(tf.cast(tf.io.decode_jpeg(one), tf.float32)), each["image"][:, 0], tf.float32
    )
    sums = [
        tf.reduce_sum(each["pixels"], [1, 2]),
        decoded,
        tf.cast(tf.sparse.reduce_sum(each["ids"], [1, 2]), tf.float32),
    ]
    return {"y": tf.add_n(sums) + whole["age"][:, 0], "words": tf.sparse.to_dense(whole["words"]), "n": each["counts"]}


def sound(text):
    def decode(one):
        return tf.reduce_mean(tf.audio.decode_wav(one, desired_channels=2, desired_samples=500).audio)

    return {"y": tf.map_fn(decode, text, tf.float32)}


def number(text):
    return {"y": tf.strings.to_number(tf.strings.strip(text), tf.int64)}


def date(text):
    return {
        "year": tf.strings.to_number(tf.strings.substr(text, 0, 4)),
        "day": tf.strings.to_number(tf.strings.substr(text, 8, 2)),
    }


def in_a_branch(text):
    return {"y": tf.cond(tf.size(text) > 0, lambda: tf.strings.to_number(text), lambda: tf.zeros([0]))}


def plain(text):
    return {
        "y": tf.strings.length(text),
        "bytes": tf.io.read_file(tf.strings.join(["/dev/null", tf.strings.substr(text[:1], 0, 0)[0]])),
    }


IMAGE = ImageBytes("jpeg")
CASES = [
    (
        example_v2,
        ExampleSpec(
            {
                "age": Feature("float32", 1),
                "name": Feature("string", 2),
                "image": Feature("string", 1, IMAGE),
                "ids": Feature("int64", 2),
                "pairs": Feature("int64", 6),
                "words": Feature("string", 2),
            }
        ),
    ),
    (example_one_by_one, ExampleSpec({"age": Feature("float32", 1), "ids": Feature("int64", 2)})),
    (
        sequences,
        SequenceExampleSpec(
            {"age": Feature("float32", 2), "words": Feature("string", 2)},
            {
                "pixels": Feature("float32", 3),
                "image": Feature("string", 1, IMAGE),
                "ids": Feature("int64", 2),
                "counts": Feature("int64", 2),
            },
        ),
    ),
    (sound, SoundBytes(2, 500)),
    (image, IMAGE),
    (base64_image, Base64Text(ImageBytes("png"))),
    (csv, CsvText(("int32", "float32", "string"), ";")),
    (number, NumberText(is_float=False)),
    (date, NumberText(is_float=True, is_date=True)),
    (in_a_branch, NumberText(is_float=True)),
    (plain, None),
]


def ask(path, signature, input_name, care="little"):
    """Return what is found for an input, and what each loader answers to made-up requests."""
    meta_graph = parse_saved_model(str(path)).meta_graphs[0]
    before = meta_graph.SerializeToString(deterministic=True)
    found = encodings(meta_graph, signature)
    assert meta_graph.SerializeToString(deterministic=True) == before
    inputs = read_saved_model(storage.open_dir(path)).meta_graphs[0].signatures[signature].inputs
    specs = {name: InputSpec(info.dtype, info.shape) for name, info in inputs.items()}
    made = generate(specs, encodings=found, care=care)
    again = generate(specs, encodings=found, care=care)
    assert all(np.array_equal(made.inputs[name], again.inputs[name]) for name in specs)
    answers = []
    for loader in ("session", "v2"):
        with Servable(path, loader=loader) as servable:
            answers += [servable(signature, request) for request in made.batches(64)]
    return found.get(input_name), answers


@pytest.mark.parametrize("care", ["little", "some", "most"])
@pytest.mark.parametrize(("serve", "wanted"), CASES, ids=[serve.__name__ for serve, _ in CASES])
def test_functions(tmp_path, serve, wanted, care):
    module = tf.Module()
    module.serve = tf.function(serve, input_signature=[TEXT])
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    found, answers = ask(tmp_path, "serving_default", "text", care)
    assert found == wanted
    assert len(answers) == 2


def test_a_graph_of_version_1(tmp_path):
    """The placeholder of an Estimator: parsed, its image decoded in a loop, its text looked up."""
    features = {name: FEATURES[name] for name in ("age", "image", "ids")}
    with tf.Graph().as_default(), tf1.Session() as session:
        text = tf1.placeholder(tf.string, [None])
        alone = tf1.placeholder(tf.string, [])
        parsed = tf1.parse_example(tf.identity(text), features)
        pixels = tf1.map_fn(
            lambda one: tf.reduce_mean(tf.cast(tf.io.decode_png(one), tf.float32)), parsed["image"], tf.float32
        )
        one = tf1.parse_single_example(alone, {"age": features["age"]})["age"]
        signatures = {
            "serving_default": tf1.saved_model.predict_signature_def({"inputs": text}, {"y": parsed["age"] + pixels}),
            "one": tf1.saved_model.predict_signature_def({"inputs": alone}, {"y": one}),
        }
        builder = tf1.saved_model.Builder(str(tmp_path / "m"))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    found, answers = ask(tmp_path / "m", "serving_default", "inputs")
    assert found == ExampleSpec(
        {"age": Feature("float32", 1), "image": Feature("string", 1, ImageBytes("png")), "ids": Feature("int64", 2)}
    )
    assert answers[0]["y"].shape == (16,)
    found, answers = ask(tmp_path / "m", "one", "inputs")
    assert found == ExampleSpec({"age": Feature("float32", 1)})
    assert answers[0]["y"].shape == ()


def test_of_a_graph_with_a_constant_that_is_none_any_value_will_do(tmp_path):
    class Parser(tf.Module):
        @tf.function(input_signature=[TEXT])
        def serve(self, text):
            return {"y": tf.io.parse_example(text, {"age": FEATURES["age"]})["age"]}

    tf.saved_model.save(Parser(), str(tmp_path / "m"), signatures={"serving_default": Parser().serve})
    meta_graph = parse_saved_model(str(tmp_path / "m")).meta_graphs[0]
    assert encodings(meta_graph, "serving_default")
    for function in meta_graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "Const" and node.attr["dtype"].type == tf.string.as_datatype_enum:
                node.attr["value"].tensor.dtype = tf.float32.as_datatype_enum
    assert encodings(meta_graph, "serving_default") == {}


def test_keys_of_another_type_than_the_signature_says_are_no_values(tmp_path):
    class Finder(tf.Module):
        def __init__(self):
            words = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64))
            self.table = tf.lookup.StaticHashTable(words, -1)

        @tf.function(input_signature=[TEXT])
        def serve(self, text):
            return {"y": self.table.lookup(text)}

    finder = Finder()
    tf.saved_model.save(finder, str(tmp_path / "m"), signatures={"serving_default": finder.serve})
    meta_graph = parse_saved_model(str(tmp_path / "m")).meta_graphs[0]
    assert set(encodings(meta_graph, "serving_default")["text"].keys) == {b"a", b"b"}
    meta_graph.signature_def["serving_default"].inputs["text"].dtype = tf.float32.as_datatype_enum
    assert encodings(meta_graph, "serving_default") == {}
