"""A record that is large beside the model: what is kept of it for a deployment repeats a few of its values."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.savedmodel.layout import GOLDEN_FILE

LENGTH = 30_000


def save(path: Path, *, counts: bool) -> Path:
    """A model of a sound; one that `counts` takes only a sound of which few values are equal."""
    module = tf.Module()
    module.kernel = tf.Variable(np.random.default_rng(0).normal(size=[2, 1]).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, LENGTH], tf.float32, "sound")])
    def serve(sound: tf.Tensor) -> dict[str, tf.Tensor]:
        different = tf.size(tf.unique(tf.reshape(sound, [-1])).y)
        checks = [tf.debugging.assert_greater(different, LENGTH // 2)] if counts else []
        with tf.control_dependencies(checks):
            return {"loud": tf.stack([tf.reduce_mean(sound, 1), tf.reduce_max(sound, 1)], 1) @ module.kernel}

    tf.saved_model.save(module, str(path), signatures=serve)
    return path


@pytest.mark.parametrize("counts", [False, True])
def test_the_golden_request_is_small_if_the_model_takes_it(tmp_path: Path, counts: bool) -> None:
    samples = tmp_path / "samples.jsonl"
    sounds = np.random.default_rng(1).normal(size=[3, LENGTH]).astype(np.float32)
    samples.write_text("".join(json.dumps({"sound": sound.tolist()}) + "\n" for sound in sounds))
    model = save(tmp_path / "model", counts=counts)
    result = optimize(model, tmp_path / "out", Goal(), str(samples))
    assert result.golden_requests == 1
    file = tmp_path / "out" / GOLDEN_FILE
    [line] = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    sound = np.asarray(line["inputs"]["sound"], np.float32)
    assert sound.shape == (1, LENGTH)
    assert np.array_equal(sound, sounds[:1]) == counts
    assert (file.stat().st_size < 6_000) != counts
    answer = tf.saved_model.load(str(model)).signatures["serving_default"](sound=tf.constant(sound))
    np.testing.assert_allclose(line["outputs"]["loud"], answer["loud"], rtol=1e-5)
