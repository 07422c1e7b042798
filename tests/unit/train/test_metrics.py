import numpy as np
import pytest

from servegraph.train import metrics


def test_two_classes_by_hand():
    labels = np.array([0, 0, 1, 1])
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    found = metrics.classification(labels, np.column_stack([1 - scores, scores]))
    assert found.confusion == [[2, 0], [1, 1]]
    assert found.scalars["accuracy"] == 0.75
    assert found.scalars["auc"] == 0.75  # 3 of the 4 pairs are in order
    assert found.roc[0][:2] == (0.0, 0.0)
    assert found.roc[-1][:2] == (1.0, 1.0)


def test_ties_count_half():
    labels = np.array([0, 1, 0, 1])
    found = metrics.classification(labels, np.full((4, 2), 0.5))
    assert found.scalars["auc"] == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_the_rank_statistic(seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 200).astype(bool)
    scores = np.round(random.random(200), 1)
    better = scores[labels][:, None] - scores[~labels][None, :]
    expected = ((better > 0) + 0.5 * (better == 0)).mean()
    assert metrics.roc_curve(labels, scores)[1] == pytest.approx(expected)


def test_several_classes_average_one_against_the_rest():
    labels = np.array([0, 1, 2])
    found = metrics.classification(labels, np.eye(3))
    assert found.scalars["auc"] == 1.0
    assert found.roc is None
    assert found.confusion == np.eye(3, dtype=int).tolist()


def test_a_class_that_does_not_occur_is_left_out_of_the_area():
    found = metrics.classification(np.array([1, 1]), np.array([[0.2, 0.8], [0.4, 0.6]]))
    assert "auc" not in found.scalars


def test_regression():
    found = metrics.regression(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0]))
    assert found.scalars["mae"] == pytest.approx(2 / 3)
    assert found.scalars["r2"] == pytest.approx(-1.0)
