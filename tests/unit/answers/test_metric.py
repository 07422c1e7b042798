import math

import numpy as np
import pytest

from servegraph.answers.metric import Metric, drop, label_and_output, score
from servegraph.errors import DataError


def text(*values):
    return np.array([value.encode() for value in values], dtype=object)


P = np.float32([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
CENSUS = {"probabilities": P, "classes": text(" <=50K", " >50K", " <=50K")}


@pytest.mark.parametrize(
    ("answer", "labels", "output", "value"),
    [
        (CENSUS, ["<=50K", ">50K ", ">50K"], "classes", 2 / 3),
        (CENSUS, [0, 1, 1], "probabilities", 2 / 3),
        ({"class_ids": np.array([[0], [1], [0]]), "logits": P}, [0, 1, 0], "class_ids", 1.0),
        ({"classes": text("0", "1", "0").reshape(3, 1), "class_ids": np.array([0, 1, 1])}, [0, 1, 0], "classes", 1.0),
        ({"classes": np.array([text("a", "b")] * 3), "scores": P}, ["a", "b", "b"], "classes", 2 / 3),
        ({"logits": P * 9}, [0.0, 1.0, 1.0], "logits", 2 / 3),
        ({"p": np.float16([[0.5], [0.4], [0.9]])}, [1, 1, True], "p", 2 / 3),
        ({"spam": np.array([True, False, True])}, [1, 0, 0], "spam", 2 / 3),
    ],
)
def test_accuracy(answer, labels, output, value):
    found = score([{k: v[:2] for k, v in answer.items()}, {k: v[2:] for k, v in answer.items()}], labels)
    assert found == Metric("accuracy", pytest.approx(value), True, output)


@pytest.mark.parametrize("labels", [[1.5, 2.0], [1, 2], [0, 1], [[1.5], [2.0]]])
def test_a_measure_has_an_error(labels):
    found = score([{"price": np.float32([[1.0], [4.0]])}], labels)
    assert (found.name, found.higher_is_better) == ("mean_absolute_error", False)
    assert found.value == pytest.approx(np.mean(np.abs(np.ravel(labels) - [1.0, 4.0])))


def test_an_answer_that_is_not_finite_is_wrong():
    assert score([{"y": np.array([np.nan, 1.0])}], [1.5, 2.0]).value == math.inf
    assert score([{"y": np.array([[np.nan, 1.0], [1.0, 0.0]])}], [0, 0]).value == 0.5


def test_the_output_can_be_said():
    answer = {"price": np.array([1.0, 2.0]), "tax": np.array([2.0, 2.0])}
    assert score([answer], [2.0, 2.5], "tax").value == 0.25
    assert label_and_output("y=tax") == ("y", "tax")
    assert label_and_output("y") == ("y", None)


@pytest.mark.parametrize(
    ("answer", "labels", "output", "says"),
    [
        ({"a": P, "b": P}, [0, 1, 0], None, r"fit \['a', 'b'\].*a \(float \[3, 2\]\), b"),
        ({"p": P}, ["x", "y", "z"], None, "fit none"),
        ({"p": P}, [0, 1, 0], "q", "no output 'q'.*p"),
        ({"p": P}, [0.5, 1, 0], "p", "labels, 0.5 and so on, fit none"),
        ({"p": P}, [0, 1, 2], None, "label 2 is no class.*has 2"),
        ({"p": P}, [0, 1, -1], None, "label -1 is no class"),
        ({"p": P}, [0, 1], None, "fit none"),
        ({"p": P}, [0, "a", 1], None, "not all text or all finite"),
        ({"p": P}, [0, {"a": 1}, 1], None, "{'a': 1}"),
        ({"p": P}, [0, math.nan, 1], None, "not all text or all finite"),
        ({"p": P}, [], None, "not all text"),
    ],
)
def test_labels_that_belong_to_nothing(answer, labels, output, says):
    with pytest.raises(DataError, match=says):
        score([answer], labels, output)


def test_drop():
    def accuracy(value):
        return Metric("accuracy", value, True, "p")

    def error(value):
        return Metric("mean_absolute_error", value, False, "p")

    assert drop(accuracy(0.9), accuracy(0.895)) == pytest.approx(0.005)
    assert drop(accuracy(0.9), accuracy(0.91)) < 0
    assert drop(error(2.0), error(2.1)) == pytest.approx(0.05)
    assert drop(error(2.0), error(1.0)) == -0.5
    assert drop(error(0.0), error(0.0)) == 0.0
    assert drop(error(0.0), error(0.1)) == math.inf
    assert drop(error(math.inf), error(1.0)) == -1.0
