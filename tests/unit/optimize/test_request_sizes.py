"""Models that take one number of records only: they are asked in requests of that size, from their start."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.original import ask_original
from servegraph.answers.tolerance import Tolerance
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.optimize.result import Optimized
from servegraph.rewriting import draft_reader
from servegraph.savedmodel.graph_reader import read_saved_model

STATE, WIDTH = 2, 6  # records that the state is kept of, values of each
LOSSLESS = ("strip", "share", "fold")


def save_with_state(path: Path) -> Path:
    """A model that adds each request to what it keeps, a row a record, as a stateful LSTM does."""
    module = tf.Module()
    module.kept = tf.Variable(np.zeros([STATE, WIDTH], np.float32))
    module.kernel = tf.Variable(np.random.default_rng(0).normal(size=[WIDTH, 3]).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, WIDTH], tf.float32, "x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        now = module.kept.assign(tf.ensure_shape(module.kept + x, [STATE, WIDTH]))  # one record is broadcast
        return {"y": now @ module.kernel}

    tf.saved_model.save(module, str(path), signatures=serve)
    return path


def save_one_at_a_time(path: Path) -> Path:
    """A model whose signature says that it takes any number of records, and which reshapes them to one."""
    module = tf.Module()
    module.kernel = tf.Variable(np.random.default_rng(0).normal(size=[WIDTH, 3]).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, WIDTH], tf.float32, "x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        one = tf.matmul(tf.reshape(x, [1, WIDTH]), module.kernel)
        return {"y": tf.reshape(one, tf.stack([tf.shape(x)[0], 3]))}

    tf.saved_model.save(module, str(path), signatures=serve)
    return path


def kept(done: Optimized) -> dict[str, str]:
    return {step.name: step.reason for step in done.steps if step.name != "share"}


def test_a_state_of_some_records_is_asked_as_many_from_its_start(tmp_path: Path) -> None:
    done = optimize(save_with_state(tmp_path / "model"), tmp_path / "out", Goal(rungs=LOSSLESS))
    assert kept(done) == {"strip": "", "fold": ""}
    assert done.notes[0].startswith("Answered otherwise from call to call")


@pytest.mark.parametrize("labelled", [False, True])
def test_a_model_of_one_record_is_asked_one_after_the_other(labelled: bool, tmp_path: Path) -> None:
    model = save_one_at_a_time(tmp_path / "model")
    samples, label = None, None
    if labelled:
        random = np.random.default_rng(1)
        kernel = random.normal(size=WIDTH)
        lines = [{"x": random.normal(size=WIDTH).tolist(), "label": int(kernel[0] > 0)} for _ in range(20)]
        (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)))
        samples, label = str(tmp_path / "samples.jsonl"), "label"
    goal = Goal(rungs=(*LOSSLESS, "quarter"), label=label, tolerance=Tolerance(max_abs_diff=0.1))
    done = optimize(model, tmp_path / "out", goal, samples)
    assert set(kept(done).values()) <= {"", "nothing to do", "saves nothing"}
    assert done.sample_rows == (20 if labelled else 16)
    assert done.golden_requests == 16
    assert (done.metric_name, done.samples_generated) == (("accuracy", False) if labelled else (None, True))


@pytest.mark.parametrize(("steady", "is_new"), [({}, True), ({("serve",): {}}, False)])
def test_after_a_request_in_vain_only_what_may_have_changed_is_loaded_anew(
    steady: dict[tuple[str, ...], dict[str, str]], is_new: bool, tmp_path: Path
) -> None:
    module = tf.Module()
    module.calls = tf.Variable(0)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        calls = module.calls.assign_add(1)
        with tf.control_dependencies([tf.debugging.assert_equal(x, tf.ones_like(x) + tf.cast(calls * 0, tf.float32))]):
            return {"calls": tf.identity(calls)}

    tf.saved_model.save(module, str(tmp_path / "m"), signatures=serve)
    graph = read_saved_model(storage.open_dir(tmp_path / "m"))
    evidence = ask_original(tmp_path / "m", graph, draft_reader.read(tmp_path / "m").definitions, None, steady=steady)
    assert (evidence.main.answers[0]["calls"] == 1) == is_new
