"""A rung whose loss the tolerance does not bear for all weights is kept for those for which it does."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.tolerance import Tolerance
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.savedmodel.bundle_reader import BundleReader

SMALL, LARGE = 128, 8192
LIMIT = 1.0  # as int8, the large weight moves an answer by 2.9, and all small ones together by 0.4


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Seventy small weights that hardly matter, and a large one that alone moves the answers by more than is borne.

    For a byte the small ones matter more.
    """
    draw = np.random.default_rng(0)
    made = tf.Module()
    made.small = [tf.Variable(draw.normal(size=(SMALL, SMALL)).astype(np.float32), name="small") for _ in range(70)]
    made.large = tf.Variable(draw.normal(size=(LARGE, SMALL)).astype(np.float32), name="large")

    @tf.function(input_signature=[tf.TensorSpec([None, LARGE], tf.float32, name="x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        part = x[:, :SMALL] * 0.2
        return {"y": x @ made.large + tf.add_n([part @ one for one in made.small])}

    tf.saved_model.save(made, str(tmp_path / "model"), signatures=serve)
    return tmp_path / "model"


def test_a_large_weight_that_breaks_the_tolerance_takes_no_small_one_with_it(model: Path, tmp_path: Path) -> None:
    goal = Goal(1, Tolerance(0, max_abs_diff=LIMIT), rungs=("strip", "share", "quarter"))
    result = optimize(model, tmp_path / "out", goal)
    step = result.steps[-1]
    assert step.kept, step.reason
    with BundleReader(storage.open_dir(tmp_path / "out")) as reader:
        stored = {entry.shape: entry.dtype for entry in reader.entries.values()}
    assert stored[LARGE, SMALL] == "float32"
    assert step.forms == {"int8": 70}
    assert step.full_bytes is not None
    assert step.full_bytes < step.bytes - 2 * LARGE * SMALL
    assert "all of them would reach" in step.note
    shortfall = result.shortfall()
    assert shortfall is not None
    assert "quarter of all weights would reach" in shortfall.message
