"""Estimators, trained and exported under TensorFlow 2.15 and asked under this one.

They need the environment that `servegraph train` or `export` makes on first use; nothing is installed by a test.
"""

import json
import math
import os

import numpy as np
import pytest
from tests.small_estimator import train_small, write_data

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.data import schema_file
from servegraph.errors import InputError, TrainerError
from servegraph.estimator import RECORD_FILE, environment, estimator_function
from servegraph.estimator.hyperparameters import parse_built_in, parse_training
from servegraph.export_serving_graph.export import export
from servegraph.export_serving_graph.signature_choice import Requests
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.reachability import training_baggage
from servegraph.serving_inputs.encode import encode

ready = pytest.mark.skipif(not environment.is_ready(os.environ), reason="no environment with TensorFlow 2.15 yet")

OWN = '''
import tensorflow as tf

def make(args):
    """An Estimator of a user's own, with a model function of TensorFlow 1's kind."""
    def model_fn(features, labels, mode, params):
        size = tf.cast(features["size"], tf.float32)
        weight = tf.compat.v1.get_variable("weight", [], initializer=tf.compat.v1.ones_initializer())
        logits = tf.stack([-weight * size, weight * size], axis=1)
        predictions = {"probabilities": tf.nn.softmax(logits)}
        if mode == tf.estimator.ModeKeys.PREDICT:
            return tf.estimator.EstimatorSpec(mode, predictions=predictions)
        wanted = tf.cast(tf.equal(labels, "yes"), tf.int32)
        loss = tf.compat.v1.losses.sparse_softmax_cross_entropy(wanted, logits)
        step = tf.compat.v1.train.AdamOptimizer(0.1).minimize(loss, tf.compat.v1.train.get_global_step())
        return tf.estimator.EstimatorSpec(mode, predictions=predictions, loss=loss, train_op=step)

    return tf.estimator.Estimator(model_fn, args.model_dir)

def receive():
    size = tf.compat.v1.placeholder(tf.float32, [None], name="size")
    return tf.estimator.export.ServingInputReceiver({"size": size}, {"how_large": size})

def broken(args):
    raise RuntimeError("no such thing")

def elsewhere(args):
    return tf.estimator.LinearRegressor([tf.feature_column.numeric_column("size")])

def numbers(args):
    return tf.estimator.LinearClassifier([tf.feature_column.numeric_column("size")], args.model_dir)

def unknown(args):
    return tf.estimator.LinearRegressor([tf.feature_column.numeric_column("weight")], args.model_dir)
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("estimator")
    write_data(path)
    return path, train_small(path)


def requests(path, schema):
    records = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    arrays = {
        c.input_name: np.array([r[c.input_name] for r in records], dtype=object if c.dtype == "string" else c.dtype)
        for c in schema.features
    }
    return records, arrays


@ready
def test_a_trained_estimator_answers_alike_in_every_format(trained, tmp_path):
    path, result = trained
    assert result.evaluation.scalars["accuracy"] > 0.9
    assert not list((path / "model").rglob("*tfevents*"))
    export(path / "model", tmp_path / "out", requests=Requests(formats=("json", "csv", "example")))
    schema = schema_file.parse((path / "model/schema.yaml").read_text(), "s")
    records, arrays = requests(path, schema)
    for loader in ("session", "v2"):
        with Servable(tmp_path / "out", loader=loader) as servable:
            answers = servable("serving_default", arrays)
            right = [c[0].decode() == r["y"].strip() for c, r in zip(answers["classes"], records, strict=True)]
            assert abs(np.mean(right) - result.evaluation.scalars["accuracy"]) < 1e-6
            for which in ("csv", "example"):
                again = servable(which, encode(arrays, schema, which))
                assert np.allclose(again["probabilities"], answers["probabilities"], atol=1e-6)
            gap = servable("csv", {"csv_row": np.array([b" , red , s1,,"], object)})
            default = servable("csv", {"csv_row": np.array([b"0.5,red,s1,,"], object)})
            assert np.array_equal(gap["probabilities"], default["probabilities"])


@ready
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"first_layer_size": 50},
            r'another training: hyperparameters \{"first_layer_size": 100\}, now \{"first_layer_size": 50\}',
        ),
        ({"train_steps": 100}, "a checkpoint of 500 steps, more than the 100 asked for"),
    ],
)
def test_checkpoints_of_another_estimator_are_refused(trained, changed, says):
    with pytest.raises(InputError, match=says) as caught:
        train_small(trained[0], **changed)
    assert caught.value.code == "OTHER_CHECKPOINTS"


@ready
def test_a_model_dir_is_exported_without_retraining(trained, tmp_path):
    path, _ = trained
    before = sorted((file.name, file.stat().st_mtime_ns) for file in (path / "checkpoints").iterdir())
    export(path / "checkpoints", tmp_path / "out", requests=Requests(formats=("example",)))
    assert sorted((file.name, file.stat().st_mtime_ns) for file in (path / "checkpoints").iterdir()) == before
    (meta_graph,) = read_saved_model(storage.open_dir(tmp_path / "out")).meta_graphs
    methods = {name: s.method_name.rpartition("/")[2] for name, s in meta_graph.signatures.items()}
    assert methods == {"serving_default": "predict", "classification": "classify", "regression": "regress"}
    assert training_baggage(storage.open_dir(tmp_path / "out")) == []


@ready
def test_an_estimator_of_ones_own_with_its_serving_input_fn(tmp_path):
    write_data(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    trainer = f"estimator:{tmp_path}/own.py:make"
    train_small(tmp_path, trainer, train_steps=5)
    with pytest.raises(InputError) as caught:  # a name in a model's directory does not decide which code runs
        export(tmp_path / "model", tmp_path / "out")
    assert caught.value.code == "WHICH_ESTIMATOR"
    chosen = Requests(trainer=trainer, serving_input_fn=f"{tmp_path}/own.py:receive")
    result = export(tmp_path / "model", tmp_path / "out", requests=chosen)
    assert (result.inputs, result.signatures) == (("how_large",), ("serving_default",))
    (tmp_path / "other.py").write_text(OWN.replace('"weight"', '"other"'))
    other = Requests(trainer=f"estimator:{tmp_path}/other.py:make", serving_input_fn=f"{tmp_path}/own.py:receive")
    with pytest.raises(InputError, match=r"another Estimator than .*: Key other not found in checkpoint") as caught:
        export(tmp_path / "model", tmp_path / "other", requests=other)
    assert caught.value.code == "OTHER_CHECKPOINTS"
    with pytest.raises(TrainerError, match="no such thing"):
        export(tmp_path / "model", tmp_path / "bad", requests=Requests(trainer=f"estimator:{tmp_path}/own.py:broken"))


def test_a_function_that_is_not_named_as_an_estimators_is_no_circle(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / RECORD_FILE).write_text('{"trainer": "estimator:own.py:make"}')
    with pytest.raises(InputError, match="'estimator:'") as caught:
        export(tmp_path / "model", tmp_path / "out", requests=Requests(trainer="own.py:make"))
    assert (caught.value.code, caught.value.fix) == ("WHICH_ESTIMATOR", "Give --trainer estimator:own.py:make.")


@ready
@pytest.mark.parametrize(
    ("function", "code", "message", "fix"),
    [
        ("elsewhere", "OTHER_MODEL_DIR", "keeps its checkpoints in ", "model_dir=args.model_dir"),
        (
            "numbers",
            "ESTIMATOR_FAILED",
            "raised UnimplementedError: Cast string to float is not supported.",
            "vocabulary",
        ),
        (
            "unknown",
            "ESTIMATOR_FAILED",
            "raised ValueError: Feature weight is not in features",
            "traceback",
        ),
    ],
)
def test_what_is_wrong_with_an_estimator_of_ones_own_is_said_in_one_line(function, code, message, fix, tmp_path):
    write_data(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(TrainerError) as caught:
        train_small(tmp_path, f"estimator:{tmp_path}/own.py:{function}", train_steps=5)
    assert caught.value.code == code
    assert message in caught.value.message and "File " not in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"depth": 3}, "It has train_steps, batch_size, embedding_size"),
        (
            {"first_layer_size": -5},
            "first_layer_size is -5. Fix: Give a whole number of at least 1; the default is 100",
        ),
        ({"embedding_size": 0}, "embedding_size is 0"),
        ({"num_layers": "x"}, "num_layers is 'x'"),
        ({"scale_factor": math.nan}, "scale_factor is nan. Fix: Give a finite number above 0"),
        ({"train_steps": 2.5}, "train_steps is 2.5"),
    ],
)
def test_bad_hyperparameters_of_the_built_in_estimator(given, says):
    with pytest.raises(InputError, match=says) as caught:
        parse_built_in(parse_training(given).rest)
    assert caught.value.code == "BAD_HYPERPARAMETER"


def test_numbers_are_whole_again_after_a_pipeline():
    assert parse_training({"train_steps": 5.0, "seed": 0, "units": 2}) == (5, 40, 0, {"units": 2})
    assert parse_built_in({"num_layers": 2.0}) == {
        "embedding_size": 8,
        "first_layer_size": 100,
        "num_layers": 2,
        "scale_factor": 0.7,
    }


def test_which_trainers_are_estimators():
    assert estimator_function("estimator") == "servegraph.estimator.wide_and_deep:make"
    assert estimator_function("estimator:a/b.py:make") == "a/b.py:make"
    assert estimator_function("servegraph.train.wide_and_deep:train") is None


def test_without_a_python_that_tensorflow_215_runs_on(tmp_path):
    with pytest.raises(InputError) as caught:
        environment.interpreter({environment.VARIABLE: str(tmp_path / "python")})
    assert caught.value.code == "NO_PYTHON"
