"""Deflating loses nothing: it comes before a rung that does, wherever the model fits by it."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.optimize.result import Optimized

SIDE = 300
FLOAT32 = SIDE * SIDE * 4


class Net(tf.Module):
    """One matrix, of which `share` of the weights is not zero."""

    def __init__(self, share: float) -> None:
        super().__init__()
        random = np.random.default_rng(0)
        values = random.normal(size=(SIDE, SIDE)).astype(np.float32)
        values[random.random(values.shape) >= share] = 0
        self.weight = tf.Variable(values)

    @tf.function(input_signature=[tf.TensorSpec([None, SIDE], tf.float32, name="x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x @ self.weight}


def fitted(tmp_path: Path, share: float, budget_bytes: int) -> Optimized:
    net = Net(share)
    tf.saved_model.save(net, str(tmp_path / "net"), signatures=net.serve)
    return optimize(tmp_path / "net", tmp_path / "out", Goal(budget_bytes))


def climbed(result: Optimized) -> list[str]:
    """The rungs that only a budget asks for, as they were tried, and kept."""
    waiting = ("halve", "quarter", "eighth", "compress")
    return [step.name for step in result.steps if step.kept and step.name in waiting]


def test_a_pruned_model_that_fits_by_it_keeps_every_bit(tmp_path: Path) -> None:
    result = fitted(tmp_path, 0.2, FLOAT32 // 2)
    assert result.fits
    assert climbed(result) == ["compress"]
    assert [step.name for step in result.steps].count("compress") == 1
    assert {step.max_abs_diff for step in result.steps} <= {0.0, None}


@pytest.mark.parametrize(
    ("budget_bytes", "rungs"), [(FLOAT32 // 5, ["halve", "compress"]), (FLOAT32 // 8, ["halve", "quarter", "compress"])]
)
def test_it_comes_after_as_few_rungs_that_lose_as_fit(tmp_path: Path, budget_bytes: int, rungs: list[str]) -> None:
    result = fitted(tmp_path, 0.2, budget_bytes)
    assert result.fits
    assert climbed(result) == rungs


def test_where_it_saves_nothing_the_next_rung_is_climbed(tmp_path: Path) -> None:
    result = fitted(tmp_path, 1.0, FLOAT32 * 6 // 10)
    assert result.fits
    assert climbed(result) == ["halve"]
    assert [step.name for step in result.steps][-3:] == ["compress", "variables", "resident"]
