"""Of signatures that compute the same one is asked; through tf.saved_model.load they must show it."""

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from servegraph import storage
from servegraph.answers.evidence import Evidence
from servegraph.answers.original import ask_original
from servegraph.optimize.equal_signatures import computed_as, steady_signatures
from servegraph.rewriting import draft_reader
from servegraph.savedmodel.graph_reader import read_saved_model

FACTORS = {"serve": 2.0, "serving_default": 2.0, "triple": 3.0}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = 2 · w · x under two names, as Keras exports it, and 3 · w · x."""
    module = tf.Module()
    module.w = tf.Variable(1.5)

    def times(factor: float) -> tf.types.experimental.GenericFunction:
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
        def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x * module.w * factor}

        return serve

    tf.saved_model.save(module, str(tmp_path / "m"), signatures={name: times(by) for name, by in FACTORS.items()})
    return tmp_path / "m"


def asked(model: Path) -> Evidence:
    original = draft_reader.read(model)
    steady = steady_signatures(original.serving_graphs)
    return ask_original(model, read_saved_model(storage.open_dir(model)), original.definitions, None, steady=steady)


def by_name(evidence: Evidence, loader: str) -> dict[str, list[object]]:
    found = {q.signature: q.answers for q in evidence.questions if q.loader == loader}
    assert found.keys() == FACTORS.keys()
    return found


@pytest.mark.parametrize("loader", ["session", "v2"])
def test_one_of_two_is_asked_and_every_other_by_itself(model: Path, loader: str) -> None:
    answers = by_name(asked(model), loader)
    assert answers["serve"] is answers["serving_default"]
    assert (answers["triple"][0]["y"] == answers["serve"][0]["y"] * 1.5).all()


def test_a_function_that_only_one_loader_has_is_asked_through_it(model: Path) -> None:
    saved = SavedModel.FromString((model / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    signatures["serve"].CopyFrom(signatures["triple"])  # the functions that tf.saved_model.load calls stay
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    evidence = asked(model)
    session, v2 = by_name(evidence, "session"), by_name(evidence, "v2")
    assert session["serve"] is session["triple"]
    assert (v2["triple"][0]["y"] == v2["serve"][0]["y"] * 1.5).all()


def test_a_model_that_counts_is_asked_by_every_name(tmp_path: Path) -> None:
    module = tf.Module()
    module.calls = tf.Variable(0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + tf.cast(module.calls.assign_add(1), tf.float32)}

    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serve": serve, "serving_default": serve})
    assert not steady_signatures(draft_reader.read(tmp_path / "m").serving_graphs)


def test_names_of_one_function_that_draws_numbers_stay_apart(tmp_path: Path) -> None:
    """Each has a sequence of its own, the second and the third as well, which call what the first has called."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + tf.random.normal(tf.shape(x), seed=7)}

    tf.saved_model.save(tf.Module(), str(tmp_path / "m"), signatures=dict.fromkeys("abc", serve))
    (graph,) = draft_reader.read(tmp_path / "m").serving_graphs
    assert computed_as(graph) == {}
