import numpy as np
import pytest

from servegraph.answers.compare import compare


def one(**outputs):
    return [{name: np.array(value) for name, value in outputs.items()}]


def test_equal_answers_are_identical():
    answers = one(p=[[0.2, 0.8], [0.6, 0.4]], c=np.array([b"b", b"a"], object))
    found = compare(answers, answers)
    assert found.identical
    assert (found.rows, found.agreement) == (2, 1.0)


def test_the_decision_is_the_largest_of_several():
    found = compare(one(p=[[0.2, 0.8], [0.51, 0.49]]), one(p=[[0.3, 0.7], [0.49, 0.51]]))
    assert found.agreement == 0.5
    assert found.max_abs_diff == pytest.approx(0.1)
    assert found.max_relative_diff == pytest.approx(0.125)
    assert not found.identical


def test_a_single_probability_decides_at_one_half_and_a_measure_decides_nothing():
    assert compare(one(p=[0.49, 0.9]), one(p=[0.51, 0.8])).agreement == 0.5
    assert compare(one(price=[100.0, 3.0]), one(price=[101.0, 2.0])).agreement == 1.0


def test_one_output_that_changes_its_mind_is_enough():
    before = one(p=[[0.2, 0.8]], c=np.array([b"b"], object))
    after = one(p=[[0.2, 0.8]], c=np.array([b"a"], object))
    assert compare(before, after).agreement == 0.0


def test_nan_that_was_there_is_no_news():
    before = one(y=[np.nan, 1.0, np.inf])
    assert compare(before, before).identical
    after = compare(before, one(y=[np.nan, np.nan, np.inf]))
    assert after.new_non_finite == 1
    assert not after.identical


def test_batches_add_up():
    before = one(p=[[0.2, 0.8]]) + one(p=[[0.9, 0.1], [0.9, 0.1]])
    after = one(p=[[0.2, 0.8]]) + one(p=[[0.9, 0.1], [0.1, 0.9]])
    found = compare(before, after)
    assert (found.rows, found.agreement) == (3, pytest.approx(2 / 3))
    assert found.mean_abs_diff == pytest.approx(1.6 / 6)


@pytest.mark.parametrize("after", [one(q=[1.0]), one(p=[[1.0]])])
def test_other_outputs_cannot_be_compared(after):
    with pytest.raises(ValueError, match="became"):
        compare(one(p=[1.0]), after)
