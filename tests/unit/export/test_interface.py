"""Names and methods of signatures: an export that keeps an older version's names, and classify and regress."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.deploy_version.signature_gate import breaking_changes
from servegraph.errors import ExportRefused, InputError
from servegraph.export_serving_graph.export import export
from servegraph.export_serving_graph.interface import Interface, WantedNames, interfaces, parse_methods
from servegraph.export_serving_graph.signature_choice import Requests, Wanted
from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.methods import decode_for, encode_for
from servegraph.serve.model import load_model
from servegraph.serve.signatures import read_serving_graph

SCHEMA = """
label: y
columns:
  size: {dtype: float32, default: 0.5}
  y: {dtype: string, classes: ["no", "yes"]}
"""
PREDICT = "tensorflow/serving/predict"


def tensors(**given):
    return {name: TensorInfo((name,), dtype, shape, "dense") for name, (dtype, shape) in given.items()}


def signature(inputs, outputs):
    return {"serving_default": Signature(PREDICT, tensors(**inputs), tensors(**outputs))}


FLOATS, TEXT = ("float32", (None,)), ("string", (None,))
SCORES, LABELS = ("float32", (None, 3)), ("string", (None, 3))


def like(now, was):
    return interfaces(now, WantedNames(like="old"), was)["serving_default"]


def test_what_is_called_otherwise_is_told_by_type_and_rank():
    now = signature({"age": FLOATS, "job": TEXT}, {"probabilities": SCORES, "classes": LABELS})
    was = signature({"age": FLOATS, "occupation": TEXT}, {"scores": SCORES, "classes": LABELS})
    assert like(now, was) == Interface(
        {"age": "age", "occupation": "job"}, {"scores": "probabilities", "classes": "classes"}, PREDICT
    )


def test_a_lone_output_stays_alone_and_others_get_company():
    now = signature({"x": FLOATS}, {"p": SCORES, "label": TEXT})
    assert like(now, signature({"x": FLOATS}, {"old": SCORES})).outputs == {"old": "p"}
    now = signature({"x": FLOATS}, {"p": SCORES, "label": TEXT, "new": FLOATS})
    assert like(now, signature({"x": FLOATS}, {"old": SCORES, "l": TEXT})).outputs == {
        "old": "p",
        "l": "label",
        "new": "new",
    }


@pytest.mark.parametrize(
    ("now", "was", "says"),
    [
        ({"a": FLOATS, "b": FLOATS}, {"x": FLOATS, "y": FLOATS}, "several fit of a float32[?], b float32[?]"),
        ({"a": TEXT}, {"x": FLOATS}, "none fits of a string[?]"),
        ({"a": FLOATS, "b": TEXT}, {"a": FLOATS}, "the inputs b of serving_default have none to match"),
    ],
)
def test_names_that_do_not_fit(now, was, says):
    with pytest.raises(InputError) as caught:
        like(signature(now, {"p": SCORES}), signature(was, {"p": SCORES}))
    assert caught.value.code == "NAMES_DO_NOT_FIT"
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (WantedNames(inputs={"new": "nowhere"}), "NO_SUCH_TENSOR"),
        (WantedNames(outputs={"new": "nowhere"}), "NO_SUCH_TENSOR"),
        (WantedNames(inputs={"b": "a"}), "NAME_TAKEN"),
        (WantedNames(methods={"csv": "classify"}), "NO_SUCH_SIGNATURE"),
    ],
)
def test_names_that_are_not_there_or_taken(wanted, code):
    with pytest.raises(InputError) as caught:
        interfaces(signature({"a": FLOATS, "b": FLOATS}, {"p": SCORES}), wanted, {})
    assert caught.value.code == code
    with pytest.raises(InputError) as unknown:
        parse_methods({"serving_default": "guess"})
    assert unknown.value.code == "UNKNOWN_METHOD"


@pytest.mark.parametrize(
    ("method", "outputs", "found"),
    [
        ("classify", {"p": SCORES, "names": LABELS}, {"classes": "names", "scores": "p"}),
        ("classify", {"p": SCORES}, {"scores": "p"}),
        ("classify", {"p": SCORES, "best": TEXT}, None),
        ("classify", {"p": SCORES, "q": SCORES}, None),
        ("regress", {"v": FLOATS}, {"outputs": "v"}),
        ("regress", {"v": ("float32", (None, 1))}, {"outputs": "v"}),
        ("regress", {"v": SCORES}, None),
        ("regress", {"v": FLOATS, "w": FLOATS}, None),
        ("regress", {"v": TEXT}, None),
    ],
)
def test_a_method_is_refused_where_it_cannot_carry_the_outputs(method, outputs, found):
    wanted = WantedNames(methods={"serving_default": method})
    if found is None:
        with pytest.raises(ExportRefused) as caught:
            interfaces(signature({"e": TEXT}, outputs), wanted, {})
        assert caught.value.code == "METHOD_DOES_NOT_FIT"
        return
    expected = Interface({"inputs": "e"}, found, f"tensorflow/serving/{method}")
    assert interfaces(signature({"e": TEXT}, outputs), wanted, {})["serving_default"] == expected
    with pytest.raises(ExportRefused, match=r"tf\.Example"):
        interfaces(signature({"e": FLOATS}, outputs), wanted, {})


def keras_model(path, input_name, units):
    x = keras.Input((), name=input_name)
    p = keras.layers.Dense(units, "softmax" if units > 1 else "sigmoid", name=f"p_{input_name}")
    path.mkdir()
    keras.Model({input_name: x}, p(keras.layers.Reshape((1,))(x))).save(path / "m.keras")
    return path / "m.keras"


def signatures(path):
    return read_serving_graph(storage.open_dir(path)).signatures


def test_a_new_keras_export_keeps_the_names_of_the_old_one(tmp_path):
    export(keras_model(tmp_path / "a", "size", 3), tmp_path / "old")
    new = keras_model(tmp_path / "b", "width", 3)
    export(new, tmp_path / "breaks")
    assert breaking_changes(signatures(tmp_path / "old"), signatures(tmp_path / "breaks"))
    names = WantedNames(like=str(tmp_path / "old"))
    result = export(new, tmp_path / "keeps", wanted=Wanted(names=names))
    assert (result.inputs, result.outputs, result.max_abs_diff) == (("size",), ("p_size",), 0)
    assert breaking_changes(signatures(tmp_path / "old"), signatures(tmp_path / "keeps")) == ()
    for loader in ("session", "v2"):
        with (
            Servable(tmp_path / "keeps", loader=loader) as kept,
            Servable(tmp_path / "breaks", loader=loader) as plain,
        ):
            answer = kept("serving_default", {"size": np.float32([1, -2])})["p_size"]
            assert np.array_equal(answer, plain("serving_default", {"width": np.float32([1, -2])})["p_width"])


@pytest.mark.parametrize(("units", "method", "width"), [(2, "classify", 2), (1, "classify", 2), (1, "regress", 0)])
def test_a_keras_model_answers_classify_and_regress(units, method, width, tmp_path):
    (tmp_path / "schema.yaml").write_text(
        SCHEMA if method == "classify" else SCHEMA.replace('string, classes: ["no", "yes"]', "float32")
    )
    wanted = Wanted(names=WantedNames(methods={"example": method}))
    source = keras_model(tmp_path / "a", "size", units)
    result = export(
        source,
        tmp_path / "out",
        schema_file=tmp_path / "schema.yaml",
        wanted=wanted,
        requests=Requests(formats=("json", "example")),
    )
    assert result.signatures == ("example", "serving_default")
    model = load_model(tmp_path / "out")
    body = json.dumps({"signature_name": "example", "examples": [{"size": 1.0}, {}]}).encode()
    request = decode_for(method, body, model.graph)
    answered = json.loads(encode_for(model.run("example", request.inputs), request))["results"]
    predicted = model.run("serving_default", {"size": np.float32([1.0, 0.5])})
    if width:
        assert [[label for label, _ in row] for row in answered] == [["no", "yes"]] * 2
        assert np.allclose([[score for _, score in row] for row in answered], predicted["probabilities"], atol=1e-6)
    else:
        assert np.allclose(answered, predicted["values"], atol=1e-6)


def test_a_renamed_signature_of_tf1_with_its_method(tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="serialized")
        x = v1.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([2], tf.float32)})["x"]
        v1.saved_model.simple_save(session, str(tmp_path / "tf1"), {"examples": serialized}, {"p": tf.nn.softmax(x)})
    wanted = Wanted(names=WantedNames(methods={"serving_default": "classify"}))
    record = tf.train.Example(features=tf.train.Features(feature={"x": tf.train.Feature(float_list={"value": [1, 1]})}))
    export(tmp_path / "tf1", tmp_path / "out", wanted=wanted)
    found = signatures(tmp_path / "out")["serving_default"]
    assert (found.method_name, list(found.inputs), list(found.outputs)) == (
        "tensorflow/serving/classify",
        ["inputs"],
        ["scores"],
    )
    with Servable(tmp_path / "out") as servable:
        request = {"inputs": np.array([record.SerializeToString()], object)}
        assert servable("serving_default", request)["scores"].tolist() == [[0.5, 0.5]]


def test_tags_choose_nothing_where_there_is_one_graph(tmp_path):
    with pytest.raises(InputError) as caught:
        export(keras_model(tmp_path / "a", "size", 3), tmp_path / "out", wanted=Wanted(tags=("serve",)))
    assert caught.value.code == "NO_METAGRAPHS"


def test_a_schema_says_nothing_of_a_model_that_has_its_signatures(tmp_path):
    (tmp_path / "schema.yaml").write_text("no matter what")
    with pytest.raises(InputError) as caught:
        export(
            Path(__file__).parents[2] / "real_models/keras_dense",
            tmp_path / "out",
            schema_file=tmp_path / "schema.yaml",
        )
    assert caught.value.code == "NO_SCHEMA_NEEDED"
    assert not (tmp_path / "out").exists()


def test_other_tags_are_written_and_said_to_be_for_nobody_by_default(tmp_path):
    wanted = Wanted(names=WantedNames(tags=("serve", "canary")))
    result = export(keras_model(tmp_path / "a", "size", 3), tmp_path / "out", wanted=wanted)
    assert result.tag_sets == (("serve", "canary"),)
    assert any("unless they are told" in note for note in result.notes)
    with Servable(tmp_path / "out", tags=("serve", "canary")) as servable:
        assert servable("serving_default", {"size": np.float32([1])})["p_size"].shape == (1, 3)
