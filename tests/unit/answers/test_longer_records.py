"""Models that refuse a short record, or answer nothing to it: they are asked with longer ones."""

import json
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.child import in_child
from servegraph.answers.evidence import Evidence
from servegraph.answers.generated import generate, longer, made, say_something, tell_apart, tries
from servegraph.answers.made_up import Known
from servegraph.answers.original import _ask_meta_graph, ask_original
from servegraph.answers.samples import InputSpec
from servegraph.errors import ExportRefused
from servegraph.export_serving_graph.export import export
from servegraph.measure import questions
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.rewriting import draft_reader
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.serve.model import ModelOptions, load_model

CUT = 200  # values that are left out of the answer at each end


def cutting(path: Path) -> None:
    """As a net of genes does it that answers only where it sees enough on both sides."""
    x = keras.Input((None, 2), name="x")
    y = keras.layers.Cropping1D(CUT)(keras.layers.Conv1D(4, 5, padding="same")(x))
    keras.Model(x, keras.layers.Dense(3, name="y")(y)).save(path)


def refusing(path: Path) -> None:
    """As a net of sound does it, of which one step is longer than a short record."""
    x = keras.Input((None, 2), name="x")
    y = keras.layers.GlobalMaxPooling1D()(keras.layers.Conv1D(4, 2 * CUT)(x))
    keras.Model(x, keras.layers.Dense(3, name="y")(y)).save(path)


@pytest.fixture(params=[cutting, refusing])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    request.param(tmp_path / "m.keras")
    export(tmp_path / "m.keras", tmp_path / "model")
    return tmp_path / "model"


def asked(model: Path, samples: Path | None = None) -> Evidence:
    graph = read_saved_model(storage.open_dir(model))
    return ask_original(model, graph, draft_reader.read(model).definitions, str(samples) if samples else None)


def samples_of(path: Path, length: int) -> Path:
    path.write_text(json.dumps({"x": np.ones((length, 2)).tolist()}) + "\n")
    return path


def test_lengths_grow_where_a_shape_is_open() -> None:
    specs = {"x": InputSpec("float32", (None, None, 3)), "n": InputSpec("uint8", (None,))}
    lengths = [made(one).inputs["x"].shape[1] for one in longer(specs)]
    assert lengths == sorted(lengths)
    assert lengths[0] > generate(specs).inputs["x"].shape[1]
    assert 16_000 < lengths[-1] < 400_000 / 3
    assert not [*longer({"x": InputSpec("float32", (None, 3)), "z": InputSpec("float32", None)})]
    for dtype in ("string", "int64"):
        lengths = [made(one).inputs["x"].shape[1] for one in longer({"x": InputSpec(dtype, (None, None))})]
        assert 1000 < max(lengths) < 10_000
    assert max(made(one).inputs["i"].shape[1] for one in longer({"i": InputSpec("uint8", (None, None, None, 3))})) > 200


def test_what_looks_like_sound_is_long_at_once() -> None:
    sound, tags = InputSpec("float32", (None, None)), InputSpec("int64", (None, 2))
    assert tries({"x": sound, "t": tags})[0].inputs["x"].shape[1] > 1000
    assert tries({"x": sound, "i": InputSpec("int64", (None, None))})[0].inputs["x"].shape[1] < 100
    assert tries({"x": sound}, {"x": Known((1, 2))})[0].inputs["x"].shape[1] < 100
    assert tries({"x": InputSpec("float32", (None, 2)), "t": tags})[0].inputs["x"].shape == (16, 2)


def test_answers_without_a_value_say_nothing() -> None:
    empty = {"y": np.zeros((2, 0, 3))}
    assert not say_something([empty, {}])
    assert say_something([empty, {"n": np.float32(1)}])
    for strange in (np.nan, -np.inf, complex(np.nan, 1)):
        assert not say_something([{"y": np.full(2, strange)}])
    assert not say_something([{"y": np.array([np.nan], ml_dtypes.bfloat16)}])
    assert say_something([{"y": np.array([np.nan, 1], ml_dtypes.bfloat16)}])
    assert say_something([{"y": np.array([b""], object)}])


def test_records_that_are_answered_alike_are_not_told_apart() -> None:
    one = {"y": np.ones((1, 3)), "n": np.float32(0)}
    assert tell_apart([one])
    assert not tell_apart([one, {"y": np.ones((2, 3)), "n": np.float32(1)}])
    assert tell_apart([one, {"y": np.array([[1, 1, 1], [1, 1, 2]]), "n": np.float32(0)}])
    assert not tell_apart([{"y": np.array([b"a", b"a"], object)}])
    assert tell_apart([{"y": np.array([b"a", b"b"], object)}])


@pytest.mark.parametrize("dtype", ["int32", "float32", "bool"])
def test_a_mask_lets_most_be_seen(dtype: str) -> None:
    specs = {"attention_mask": InputSpec(dtype, (None, None))}
    mask = generate(specs, rows=50).inputs["attention_mask"]
    assert mask.dtype == np.dtype(dtype)
    assert set(np.unique(mask).tolist()) == {0, 1}
    assert 0.8 < mask.mean() < 0.95
    assert generate(specs, care="most").inputs["attention_mask"].all()


def test_records_that_are_told_apart_come_before_others(tmp_path: Path) -> None:
    module = tf.Module()
    module.kernel = tf.Variable(np.random.default_rng(0).normal(size=[3, 2]).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x"), tf.TensorSpec([None], tf.int64, "which")])
    def serve(x, which):
        seen = tf.cast(tf.reduce_all(which < 3), tf.float32)
        return {"y": (x * seen) @ module.kernel}

    tf.saved_model.save(module, str(tmp_path / "model"), signatures=serve)
    specs = {"x": InputSpec("float32", (None, 3)), "which": InputSpec("int64", (None,))}
    blind = generate(specs)
    blind.inputs["which"][:] = 7
    sighted = generate(specs, seed=1)
    found, silent, is_marred = in_child(
        _ask_meta_graph, tmp_path / "model", "session", ("serve",), {"serving_default": [blind, sighted]}
    )
    assert (found[0].samples.equals(sighted), silent, is_marred) == (True, {}, True)
    found, silent, is_marred = in_child(
        _ask_meta_graph, tmp_path / "model", "session", ("serve",), {"serving_default": [blind, blind]}
    )
    assert (found[0].samples.equals(blind), silent) == (True, {})


def test_where_all_is_answered_alike_that_is_said(tmp_path: Path) -> None:
    module = tf.Module()
    module.bias = tf.Variable([1.0, 2.0])

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def serve(x):
        return {"y": tf.tile(module.bias[None], [tf.shape(x)[0], 1])}

    tf.saved_model.save(module, str(tmp_path / "model"), signatures=serve)
    done = optimize(tmp_path / "model", tmp_path / "out", Goal())
    assert done.golden_requests
    for notes in (done.notes, export(tmp_path / "model", tmp_path / "exported").notes):
        assert any(note.startswith("All records were answered alike") for note in notes)


def test_the_evidence_has_values(model: Path) -> None:
    evidence = asked(model)
    assert not evidence.silent
    assert all(values.size for question in evidence.questions for a in question.answers for values in a.values())


def test_golden_requests_have_answers(model: Path, tmp_path: Path) -> None:
    done = optimize(model, tmp_path / "out", Goal())
    assert done.golden_requests
    load_model(tmp_path / "out")
    found = questions.collect(tmp_path / "out", None)
    assert found.source == "golden requests"
    assert len(found.columns["x"][0]) > 2 * CUT
    assert (tmp_path / "out" / GOLDEN_FILE).stat().st_size < 10_000


def test_what_is_measured_is_an_answer(model: Path) -> None:
    found = questions.collect(model, None)
    assert found.source == "made up"
    assert len(found.columns["x"][0]) > 2 * CUT


def test_samples_that_are_answered_with_nothing_are_no_evidence(tmp_path: Path) -> None:
    cutting(tmp_path / "m.keras")
    export(tmp_path / "m.keras", tmp_path / "model")
    done = optimize(tmp_path / "model", tmp_path / "out", Goal(), str(samples_of(tmp_path / "s.jsonl", 9)))
    assert not [step for step in done.steps if step.kept]
    assert any("no answer holds a value" in note for note in done.notes)


def test_where_noise_makes_nan_more_careful_records_are_asked(tmp_path: Path) -> None:
    module = tf.Module()
    module.kernel = tf.Variable(np.random.default_rng(0).normal(size=[3, 2]).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def serve(x):
        return {"y": tf.math.log(x - 0.5 + 0 * tf.reduce_sum(tf.sqrt(x))) @ module.kernel}

    tf.saved_model.save(module, str(tmp_path / "model"), signatures=serve)
    evidence = asked(tmp_path / "model")
    assert all(np.isfinite(answer["y"]).all() for question in evidence.questions for answer in question.answers)
    assert optimize(tmp_path / "model", tmp_path / "out", Goal()).golden_requests


def test_an_output_that_is_always_empty_is_named(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def serve(x):
        boxes = tf.boolean_mask(x, tf.reduce_all(x > 1e9, 1))
        return {"boxes": boxes, "number": tf.shape(boxes)[:1]}

    tf.saved_model.save(tf.Module(), str(tmp_path / "model"), signatures=serve)
    done = optimize(tmp_path / "model", tmp_path / "out", Goal())
    assert "No answer held a value, or a finite number, so nothing is proven of: boxes." in done.notes


def test_samples_that_the_model_refuses_prove_no_export(tmp_path: Path) -> None:
    refusing(tmp_path / "m.keras")
    with pytest.raises(ExportRefused, match="negative") as caught:
        export(tmp_path / "m.keras", tmp_path / "out", samples=str(samples_of(tmp_path / "s.jsonl", 9)))
    assert caught.value.code == "NOT_PROVEN"
    assert not (tmp_path / "out").exists()


def test_a_model_that_never_answers_is_not_exported(tmp_path: Path) -> None:
    x = keras.Input((None, 2), name="x")
    keras.Model(x, keras.layers.Cropping1D(10**6, name="y")(x)).save(tmp_path / "m.keras")
    with pytest.raises(ExportRefused, match="no answer holds a value") as caught:
        export(tmp_path / "m.keras", tmp_path / "out")
    assert caught.value.code == "NOT_PROVEN"


def test_rows_whose_answers_are_empty_are_not_taken_for_independent(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, "x")])
    def serve(x):
        return {"y": x[:, CUT:] - tf.reduce_mean(x, 0)[CUT:]}

    tf.saved_model.save(tf.Module(), str(tmp_path / "1"), signatures=serve)
    assert not load_model(tmp_path / "1", ModelOptions(batch_rows=8)).shareable
