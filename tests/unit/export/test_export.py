"""Exporting small Keras models: what is written, what is refused."""

import json
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers import warmup
from servegraph.answers.ask import Servable
from servegraph.errors import DataError, ExportRefused, InputError, ModelError
from servegraph.export_serving_graph.export import export
from servegraph.export_serving_graph.signature_choice import Requests, Wanted
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.reachability import training_baggage
from servegraph.trained import checkpoints
from servegraph.trained.layers import StripText

SCHEMA = """
label: y
columns:
  size: {dtype: float32}
  colour: {dtype: string, vocabulary: [red, blue]}
  y: {dtype: string, classes: ["no", "yes"]}
"""


def small_model(units=2):
    inputs = {
        "size": keras.Input((), name="size"),
        "colour": keras.Input((), name="colour", dtype="string"),
    }
    words = keras.layers.StringLookup(vocabulary=["red", "blue"])(StripText()(inputs["colour"]))
    x = keras.layers.Concatenate()([keras.layers.Reshape((1,))(inputs["size"]), keras.layers.Embedding(3, 4)(words)])
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Dense(8, activation="relu")(x)))
    last = keras.layers.Dense(units, activation="softmax" if units > 1 else "sigmoid")(x)
    model = keras.Model(inputs, last)
    model.compile(
        "adam", "sparse_categorical_crossentropy" if units > 1 else "binary_crossentropy", metrics=["accuracy"]
    )
    features = {"size": np.zeros(8, "float32"), "colour": tf.constant(["red", "blue"] * 4)}
    model.fit(tf.data.Dataset.from_tensors((features, np.array([0, 1] * 4))), shuffle=False, verbose=0)
    return model


def trained_directory(path, model):
    path.mkdir()
    checkpoints.save_model(model, path / "model.keras")
    (path / "schema.yaml").write_text(SCHEMA)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported")
    model = small_model()
    result = export(trained_directory(path / "trained", model), path / "out")
    return model, path / "out", result


def test_the_signature_is_named_typed_and_batched(exported):
    meta_graph = read_saved_model(storage.open_dir(exported[1])).meta_graphs[0]
    signature = meta_graph.signatures["serving_default"]
    assert list(meta_graph.tags) == ["serve"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert {name: (t.dtype, t.shape) for name, t in signature.inputs.items()} == {
        "size": ("float32", (None,)),
        "colour": ("string", (None,)),
    }
    assert {name: (t.dtype, t.shape) for name, t in signature.outputs.items()} == {
        "probabilities": ("float32", (None, 2)),
        "classes": ("string", (None,)),
    }


def test_answers_are_those_of_the_model_in_both_spellings(exported):
    model, path, result = exported
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    size = tf.constant([0.5, -1.0, 2.0])
    answers = serve(size=size, colour=tf.constant(["red", " blue", "green "]))
    expected = model({"size": size, "colour": tf.constant([" red", "blue", "green"])})
    assert np.allclose(answers["probabilities"], expected, atol=1e-6)
    assert answers["classes"].numpy().tolist() == [[b"no", b"yes"][i] for i in np.argmax(expected, axis=1)]
    assert result.max_abs_diff <= 1e-6


def test_every_weight_is_stored_once_and_nothing_of_training(exported):
    model, path, _ = exported
    with BundleReader(storage.open_dir(path)) as tensors:
        stored = [entry for entry in tensors.entries.values() if entry.dtype == "float32"]
    assert sorted(entry.shape for entry in stored) == sorted(
        tuple(v.shape) for v in model.weights if v.dtype != "int64"
    )
    assert training_baggage(storage.open_dir(path)) == []


def test_keras_own_export_stores_each_weight_twice(exported, tmp_path):
    """The reason the exporter does not use it; when this fails, Keras has mended keras-team/keras#23553."""
    exported[0].export(tmp_path / "theirs", verbose=False)
    theirs = (tmp_path / "theirs/variables/variables.data-00000-of-00001").stat().st_size
    ours = (exported[1] / "variables/variables.data-00000-of-00001").stat().st_size
    assert theirs > 1.5 * ours


def test_a_single_sigmoid_gives_two_probabilities(tmp_path):
    model = small_model(units=1)
    export(trained_directory(tmp_path / "trained", model), tmp_path / "out")
    serve = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    answers = serve(size=tf.constant([1.0]), colour=tf.constant(["red"]))
    positive = float(model({"size": tf.constant([1.0]), "colour": tf.constant(["red"])})[0, 0])
    assert answers["probabilities"].numpy()[0] == pytest.approx([1 - positive, positive], abs=1e-6)


def test_without_a_schema_the_model_names_its_outputs(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, {"twice": keras.ops.multiply(x, 2.0), "total": keras.ops.sum(x, axis=1)})
    model.save(tmp_path / "m.keras")
    result = export(tmp_path / "m.keras", tmp_path / "out")
    assert set(result.outputs) == {"twice", "total"}


def test_from_a_checkpoint_directory_alone(exported, tmp_path):
    directory = tmp_path / "checkpoints"
    checkpoints.save(exported[0], directory, 3)
    (directory / "epoch-00004.keras").write_bytes(b"cut off while it was written")
    (directory / "schema.yaml").write_text(SCHEMA)
    export(directory, tmp_path / "out")
    ours = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    first = tf.saved_model.load(str(exported[1])).signatures["serving_default"]
    request = {"size": tf.constant([0.3]), "colour": tf.constant(["blue"])}
    assert np.array_equal(ours(**request)["probabilities"], first(**request)["probabilities"])


def twice_one_layer():
    left, right, shared = (
        keras.Input((4,), name="left"),
        keras.Input((4,), name="right"),
        keras.layers.Dense(3, name="d"),
    )
    return keras.Model([left, right], [shared(left), shared(right)])


def test_each_output_of_a_layer_that_is_used_twice_is_there(tmp_path):
    model = twice_one_layer()
    model.save(tmp_path / "m.keras")
    assert export(tmp_path / "m.keras", tmp_path / "out").outputs == ("d", "d_1")
    serve = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    left, right = tf.ones((2, 4)), tf.fill((2, 4), 2.0)
    answers = serve(left=left, right=right)
    for name, expected in zip(("d", "d_1"), model([left, right]), strict=True):
        assert np.allclose(answers[name], expected, atol=1e-6)


def nested():
    size, age = keras.Input((4,), name="size"), keras.Input((4,), name="age")
    x = keras.layers.Add(name="sum")([size, age])
    return keras.Model({"given": {"size": size}, "age": age}, [x, {"parts": {"a": x, "b": keras.ops.abs(x)}}])


def called(name):
    x = keras.Input((4,), name=name)
    return keras.Model(x, keras.layers.Dense(2, name="y")(x))


def language_model():
    x = keras.Input((None,), dtype="int32", name="tokens")
    embedding = keras.layers.ReversibleEmbedding(9, 4, name="token_embedding")
    return keras.Model(x, [embedding(embedding(x), reverse=True), embedding(x)])


NAMED = {
    "language-model": (language_model, ("tokens",), ("logits", "token_embedding")),
    "nested": (nested, ("age", "given_size"), ("parts_a", "parts_b", "sum")),
    "space": (lambda: called("sepal length (cm)"), ("sepal_length__cm_",), ("y",)),
    "accent": (lambda: called("\u00e2ge"), ("age",), ("y",)),
    "self": (lambda: called("self"), ("column_self",), ("y",)),
    "word-of-python": (lambda: called("class"), ("column_class",), ("y",)),
}


@pytest.mark.parametrize(("make", "inputs", "outputs"), NAMED.values(), ids=NAMED.keys())
def test_names_that_no_signature_can_have_become_some_that_it_can(make, inputs, outputs, tmp_path):
    make().save(tmp_path / "m.keras")
    result = export(tmp_path / "m.keras", tmp_path / "out")
    assert (result.inputs, result.outputs) == (inputs, outputs)


def test_a_model_that_cannot_be_a_graph_is_refused(tmp_path):
    x = keras.Input((4,), name="x")
    keras.Model(x, keras.layers.Dense(2, name="out put")(x)).save(tmp_path / "m.keras")
    with pytest.raises(ExportRefused, match="out put") as caught:
        export(tmp_path / "m.keras", tmp_path / "out")
    assert caught.value.code == "NO_SIGNATURE"


UNFIT = {
    "too-many": (keras.layers.Dense(3, activation="softmax"), "3"),
    "one-logit": (keras.layers.Dense(1), "numbers from"),
    "logits": (keras.layers.Dense(2, bias_initializer="ones"), "numbers from"),
    "two-heads": (lambda x: [keras.layers.Dense(2, activation="softmax")(x) for _ in range(2)], "2 outputs"),
}


@pytest.mark.parametrize(("end", "found"), UNFIT.values(), ids=UNFIT.keys())
def test_a_schema_of_other_classes_than_the_model_answers_with_is_refused(end, found, tmp_path):
    size = keras.Input((), name="size")
    keras.Model(size, end(keras.layers.Reshape((1,))(size))).save(tmp_path / "m.keras")
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    with pytest.raises(ExportRefused, match=found) as caught:
        export(tmp_path / "m.keras", tmp_path / "out")
    assert caught.value.code == "NO_PROBABILITIES"


@keras.saving.register_keras_serializable(package="test")
class Subclassed(keras.Model):
    """Takes the features of the schema, as the trainer's contract has it."""

    def __init__(self, **more):
        super().__init__(**more)
        self.last = keras.layers.Dense(2, activation="softmax")

    def call(self, features):
        return self.last(keras.ops.expand_dims(features["size"], 1))


@keras.saving.register_keras_serializable(package="test")
class OfOneTensor(keras.Model):
    """Takes what it was first called on."""

    def __init__(self, **more):
        super().__init__(**more)
        self.last = keras.layers.Dense(2)

    def call(self, x):
        return self.last(x)


def test_a_subclassed_model_takes_the_features_of_the_schema(tmp_path):
    model = Subclassed()
    request = {"size": tf.constant([0.5, 2.0]), "colour": tf.constant(["red", "blue"])}
    expected = model(request)
    export(trained_directory(tmp_path / "trained", model), tmp_path / "out")
    serve = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    assert np.allclose(serve(**request)["probabilities"], expected, atol=1e-6)


def test_a_subclassed_model_without_a_schema_takes_what_it_was_built_for(tmp_path):
    model = OfOneTensor()
    expected = model(tf.ones((2, 4)))
    model.save(tmp_path / "m.keras")
    assert export(tmp_path / "m.keras", tmp_path / "out").inputs == ("input",)
    serve = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    assert np.allclose(serve(input=tf.ones((2, 4)))["output_0"], expected, atol=1e-6)


def test_the_batch_that_a_model_was_built_with_is_not_the_only_one_it_takes(tmp_path):
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(np.ones((32, 3)), np.ones((32, 2)), verbose=0)  # builds it for 32 records
    model.save(tmp_path / "m.keras")
    assert export(tmp_path / "m.keras", tmp_path / "out").proof_rows == 10


def test_a_batch_that_a_model_cannot_do_without_is_refused_and_nothing_is_left(tmp_path):
    x = keras.Input(batch_shape=(4, 3, 2), name="x")
    keras.Model(x, keras.layers.LSTM(2, stateful=True)(x)).save(tmp_path / "m.keras")
    with pytest.raises(ExportRefused) as caught:
        export(tmp_path / "m.keras", tmp_path / "out")
    # Keras 3.12, the last one for Python 3.10, cannot even be called so.
    assert caught.value.code == ("FIXED_BATCH" if sys.version_info >= (3, 11) else "NO_SIGNATURE")
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


@keras.saving.register_keras_serializable(package="test")
class Summed(keras.layers.Layer):
    """Loses the batch dimension."""

    def call(self, x):
        return keras.ops.sum(x)


@keras.saving.register_keras_serializable(package="test")
class Counting(keras.layers.Layer):
    """Reads training-only randomness even when serving."""

    def call(self, x):
        return x + tf.random.uniform(tf.shape(x)) * 0.0 + tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(x, x))


@keras.saving.register_keras_serializable(package="test")
class Sampled(keras.layers.Layer):
    """Draws anew for each request, as the encoder of a variational autoencoder does."""

    def __init__(self, *, has_state, **more):
        super().__init__(**more)
        self.has_state = has_state
        self.seeds = keras.random.SeedGenerator(3)

    def get_config(self):
        return {**super().get_config(), "has_state": self.has_state}

    def call(self, x):
        return x + (
            keras.random.normal(tf.shape(x), seed=self.seeds) if self.has_state else tf.random.normal(tf.shape(x))
        )


def test_a_model_that_draws_numbers_draws_the_same_once_written(tmp_path):
    x = keras.Input((3,), name="x")
    keras.Model(x, Sampled(has_state=True)(x)).save(tmp_path / "m.keras")
    result = export(tmp_path / "m.keras", tmp_path / "out")
    assert (result.max_abs_diff <= 1e-6, result.notes) == (True, ())


@keras.saving.register_keras_serializable(package="test")
class Counted(keras.layers.Layer):
    """Adds how many requests there were, which it keeps in a weight."""

    def build(self, shape):
        self.requests = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.requests.assign_add(1.0)
        return x + self.requests


def test_a_model_that_counts_in_a_weight_counts_on_once_written(tmp_path):
    x = keras.Input((3,), name="x")
    keras.Model(x, Counted()(x)).save(tmp_path / "m.keras")
    result = export(tmp_path / "m.keras", tmp_path / "out")
    assert (result.max_abs_diff, result.notes) == (0.0, ())
    with Servable(tmp_path / "out") as servable:
        answers = [servable("serving_default", {"x": np.zeros((1, 3), np.float32)}) for _ in range(2)]
    assert [float(next(iter(answer.values()))[0, 0]) for answer in answers] == [1.0, 2.0]


def test_what_a_model_answers_otherwise_each_time_is_left_out_of_the_proof(tmp_path):
    x = keras.Input((3,), name="x")
    drawn = Sampled(has_state=False)(x)
    keras.Model(x, {"drawn": drawn, "twice": keras.ops.multiply(x, 2.0)}).save(tmp_path / "some.keras")
    keras.Model(x, drawn).save(tmp_path / "all.keras")
    (note,) = export(tmp_path / "some.keras", tmp_path / "out").notes
    assert note == "Not compared: drawn answers the same request differently each time."
    with pytest.raises(ExportRefused, match="every output") as caught:
        export(tmp_path / "all.keras", tmp_path / "none")
    assert caught.value.code == "NOT_PROVEN"


def test_an_output_without_a_batch_is_refused(tmp_path):
    x = keras.Input((3,), name="x")
    keras.Model(x, Summed()(x)).save(tmp_path / "m.keras")
    with pytest.raises(ExportRefused) as caught:
        export(tmp_path / "m.keras", tmp_path / "out")
    assert caught.value.code == "FIXED_BATCH"


def test_a_loss_in_the_serving_graph_is_refused(tmp_path):
    x = keras.Input((3,), name="x")
    keras.Model(x, Counting()(x)).save(tmp_path / "m.keras")
    with pytest.raises(ExportRefused, match="loss") as caught:
        export(tmp_path / "m.keras", tmp_path / "out")
    assert caught.value.code == "TRAINING_BAGGAGE"
    assert not (tmp_path / "out").exists()


def test_code_in_a_keras_file_runs_only_if_trusted(tmp_path):
    x = keras.Input((3,), name="x")
    keras.Model(x, keras.layers.Lambda(lambda t: t * 2.0)(x)).save(tmp_path / "m.keras")
    with pytest.raises(ModelError) as caught:
        export(tmp_path / "m.keras", tmp_path / "out")
    assert caught.value.code == "UNTRUSTED_CODE"
    export(tmp_path / "m.keras", tmp_path / "out", trust_code=True)


def test_a_damaged_file_an_empty_place_and_a_taken_output(exported, tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ModelError) as caught:
        export(tmp_path / "bad.keras", tmp_path / "out")
    assert caught.value.code == "KERAS_FILE_DAMAGED"
    with pytest.raises(ModelError) as caught:
        export(tmp_path / "nowhere", tmp_path / "out")
    assert caught.value.code == "NOTHING_TO_EXPORT"
    with pytest.raises(InputError) as caught:
        export(tmp_path / "bad.keras", exported[1])
    assert caught.value.code == "OUTPUT_EXISTS"


def rewritten(path, name, changed):
    """Rewrite one file of a Keras archive, whose content as JSON `changed` returns."""
    with zipfile.ZipFile(path) as archive:
        contents = {entry: archive.read(entry) for entry in archive.namelist()}
    contents[name] = json.dumps(changed(json.loads(contents[name]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in contents.items():
            archive.writestr(entry, content)


def test_a_whole_file_of_another_keras_is_not_called_damaged(tmp_path):
    """Keras 3.3 says of RandomRotation what range its values have, which later ones refuse."""

    def with_a_range(config):
        config["config"]["layers"][1]["config"]["value_range"] = [0, 255]
        return config

    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.RandomRotation(0.1)]).save(path)
    rewritten(path, "config.json", with_a_range)
    rewritten(path, "metadata.json", lambda metadata: metadata | {"keras_version": "3.3.3"})
    with pytest.raises(ModelError, match=r"by Keras 3\.3\.3, .* does not read it: RandomRotation: Unrecog") as caught:
        export(path, tmp_path / "out")
    assert caught.value.code == "OTHER_KERAS"
    assert "with Keras 3.3.3" in caught.value.fix


def test_hdf5_that_keras_3_wrote_and_does_not_read_is_not_asked_of_keras_2(tmp_path):
    x = keras.Input((3,), name="x")
    keras.Model(x, x + keras.layers.Dense(3)(x)).save(tmp_path / "m.h5")
    with pytest.raises(ModelError) as caught:
        export(tmp_path / "m.h5", tmp_path / "out")
    assert caught.value.code == "OTHER_KERAS"
    assert ".keras" in caught.value.fix


def test_one_model_answers_in_json_csv_and_examples(exported, tmp_path):
    model, path, _ = exported
    formats = Requests(formats=("json", "csv", "example"))
    result = export(trained_directory(tmp_path / "trained", model), tmp_path / "out", requests=formats)
    assert result.signatures == ("csv", "example", "serving_default")
    served = tf.saved_model.load(str(tmp_path / "out")).signatures
    expected = served["serving_default"](size=tf.constant([0.5, 0.0, 0.0]), colour=tf.constant(["red", " blue", "red"]))
    csv = served["csv"](csv_row=tf.constant(["0.5,red,", ", blue,yes", " N/A,red,"]))
    assert np.array_equal(csv["probabilities"], expected["probabilities"])
    with BundleReader(storage.open_dir(tmp_path / "out")) as ours, BundleReader(storage.open_dir(path)) as single:
        assert len(ours.entries) == len(single.entries)


def test_formats_need_the_schema_that_says_how_to_parse(exported, tmp_path):
    checkpoints.save_model(exported[0], tmp_path / "m.keras")
    with pytest.raises(InputError) as caught:
        export(tmp_path / "m.keras", tmp_path / "out", requests=Requests(formats=("csv",)))
    assert caught.value.code == "NO_SCHEMA"


def test_code_in_an_hdf5_file_runs_only_if_trusted(tmp_path):
    x = keras.Input((3,), name="x")
    keras.Model(x, keras.layers.Lambda(lambda t: t * 2.0)(x)).save(tmp_path / "m.h5")
    with pytest.raises(ModelError) as caught:
        export(tmp_path / "m.h5", tmp_path / "out")
    assert caught.value.code == "UNTRUSTED_CODE"


def test_warmup_requests_are_written_asked_and_read_back(exported, tmp_path):
    records = tmp_path / "warm.jsonl"
    records.write_text('{"size": 1.5, "colour": "red"}\n{"size": -1, "colour": "bl\u00fce"}\n')
    trained = trained_directory(tmp_path / "trained", exported[0])
    result = export(trained, tmp_path / "out", requests=Requests(warmup=str(records)))
    assert result.warmup_requests == 2
    first, second = warmup.read(tmp_path / "out")
    assert first.signature_name == second.signature_name == "serving_default"
    assert first.inputs["size"].tolist() == [1.5]
    assert second.inputs["colour"].tolist() == ["bl\u00fce".encode()]
    export(tmp_path / "out", tmp_path / "again")  # kept, because the signature is
    assert len(warmup.read(tmp_path / "again")) == 2
    export(tmp_path / "out", tmp_path / "renamed", wanted=Wanted(signatures={"other": "serving_default"}))
    assert warmup.read(tmp_path / "renamed") == ()


def test_more_warmup_requests_than_tensorflow_serving_takes(exported, tmp_path):
    records = tmp_path / "warm.jsonl"
    records.write_text('{"size": 1.5, "colour": "red"}\n' * 1001)
    trained = trained_directory(tmp_path / "trained", exported[0])
    with pytest.raises(DataError) as caught:
        export(trained, tmp_path / "out", requests=Requests(warmup=str(records)))
    assert caught.value.code == "TOO_MANY_REQUESTS"
    assert not (tmp_path / "out").exists()
