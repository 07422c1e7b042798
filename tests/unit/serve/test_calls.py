"""Two answers of one model to the same record agree but for rounding, and do not if the record had company."""

import numpy as np
import pytest

from servegraph.serve.calls import answers_close

SPREAD = np.random.default_rng(0).standard_normal((1, 1000), np.float32)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e8])
@pytest.mark.parametrize(("off", "is_close"), [(1e-5, True), (1e-2, False)])
def test_a_sum_near_zero_is_off_by_as_much_as_the_others(scale: float, off: float, is_close: bool) -> None:
    want = SPREAD * np.float32(scale)
    have = want + np.float32(off * scale)  # of the spread
    assert answers_close({"y": want}, {"y": have}) is is_close


def test_where_most_are_nothing_little_is_rounding() -> None:
    want = np.array([[0, 0, 0, 0.5, 0, 0, 1e6, 0]], np.float32)
    assert answers_close({"y": want}, {"y": want + np.float32(1e-6)})
    assert not answers_close({"y": want}, {"y": want + np.float32(1e-3)})


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_agrees_with_itself(odd: float) -> None:
    assert answers_close({"y": np.array([odd, 1])}, {"y": np.array([odd, 1])})
    assert not answers_close({"y": np.array([odd, 1])}, {"y": np.array([2.0, 1])})
    assert answers_close({"y": np.array([odd])}, {"y": np.array([odd])})


def test_half_precision_counts_by_its_values() -> None:
    large = np.full(70_000, 60_000, np.float16)
    assert answers_close({"y": large}, {"y": large})
    assert not answers_close({"y": large}, {"y": large - np.float16(64)})
    assert answers_close({"y": np.zeros((0, 3), np.float32)}, {"y": np.zeros((0, 3), np.float32)})


def test_names_shapes_and_types_must_be_the_same() -> None:
    assert not answers_close({"y": np.ones(2)}, {"z": np.ones(2)})
    assert not answers_close({"y": np.ones(2)}, {"y": np.ones((2, 1))})
    assert not answers_close({"y": np.ones(2)}, {"y": np.ones(2, np.float32)})
    assert not answers_close({"y": np.array([1, 2])}, {"y": np.array([1, 3])})
