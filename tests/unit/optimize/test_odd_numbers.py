"""Weights at the ends of what floats hold: arithmetic on them warns nobody."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from servegraph.answers.compare import compare
from servegraph.answers.tolerance import Tolerance
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize

VALUES = np.random.default_rng(0).normal(size=(64, 64))


def save(path: Path, scale: float, kind: tf.DType, after: Callable[[tf.Tensor, tf.Module], tf.Tensor]) -> None:
    module = tf.Module()
    module.kernel = tf.Variable((VALUES * scale).astype(kind.as_numpy_dtype))
    module.zeros = tf.Variable(tf.zeros([64], kind))
    module.mean = tf.Variable(tf.fill([64], tf.constant(1e30, kind)))

    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, "x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": after(tf.cast(x, kind) @ module.kernel, module)}

    tf.saved_model.save(module, str(path), signatures=serve)


@pytest.mark.parametrize(
    ("scale", "kind", "after"),
    [
        (1e300, tf.float64, lambda y, _: y),
        (1.0, tf.float32, lambda y, module: y / module.zeros),
        (1.0, tf.float32, lambda y, m: tf.nn.batch_normalization(y, m.mean, m.zeros, None, None, 0.0)),
    ],
    ids=["too large to be squared", "divided by zero", "no variance"],
)
def test_nothing_warns(
    tmp_path: Path, scale: float, kind: tf.DType, after: Callable[[tf.Tensor, tf.Module], tf.Tensor]
) -> None:
    save(tmp_path / "m", scale, kind, after)
    rungs = ("strip", "fold", "halve", "quarter", "eighth")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimize(tmp_path / "m", tmp_path / "out", Goal(tolerance=Tolerance(0.0), rungs=rungs))
    assert [str(one.message) for one in caught if issubclass(one.category, RuntimeWarning)] == []


def test_answers_that_are_infinitely_far_are_compared() -> None:
    found = compare([{"y": np.array([1.7e308, 0.0])}], [{"y": np.array([-1.7e308, 0.0])}])
    assert found.max_abs_diff == np.inf
