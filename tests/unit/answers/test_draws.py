"""Models that draw random numbers can be asked so that they draw the same."""

import numpy as np
import pytest
import tensorflow as tf

from servegraph.answers.ask import LOADERS, Servable
from servegraph.answers.draws import same_draws
from servegraph.answers.evidence import Question
from servegraph.answers.generated import generate
from servegraph.answers.repeats import outputs_that_vary
from servegraph.answers.samples import InputSpec

X = np.zeros((2, 3), np.float32)


class Noisy(tf.Module):
    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def noisy(self, x):
        return {
            "mean": x * 2.0,
            "noise": x + tf.random.normal(tf.shape(x)),
            "seeded": x + tf.random.normal(tf.shape(x), seed=7),
            "calls": self.calls.assign_add(1.0),
            "unseedable": tf.raw_ops.NonDeterministicInts(shape=tf.shape(x, tf.int64), dtype=tf.uint64),
            "served_at": tf.fill(tf.shape(x)[:1], tf.timestamp()),
            "year": tf.cast(tf.timestamp(), tf.int64) // 31_556_952,
        }


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("noisy") / "m"
    tf.random.set_seed(None)  # what another test set would be written into the operations
    module = Noisy()
    tf.saved_model.save(module, found, signatures=module.noisy)
    return found


def noise(path, loader):
    with Servable(path, loader=loader) as servable:
        return [servable("serving_default", {"x": X})["noise"].tolist() for _ in range(2)]


@pytest.mark.parametrize("loader", LOADERS)
def test_the_same_numbers_are_drawn_at_each_load(path, loader):
    with same_draws():
        first, again = noise(path, loader), noise(path, loader)
    assert first == again
    assert first[0] != first[1]
    assert noise(path, loader) != noise(path, loader)


@pytest.mark.parametrize("loader", LOADERS)
def test_it_is_the_same_time_at_each_load(path, loader):
    answered = []
    for _ in range(2):
        with same_draws(), Servable(path, loader=loader) as servable:
            answered.append(servable("serving_default", {"x": X})["served_at"].tolist())
    assert answered[0] == answered[1]


@pytest.mark.parametrize("loader", LOADERS)
def test_what_has_no_seed_answers_the_same_at_each_load(path, loader):
    answered = []
    for _ in range(2):
        with same_draws(), Servable(path, loader=loader) as servable:
            answered.append(servable("serving_default", {"x": X})["unseedable"])
    assert np.array_equal(*answered)
    assert (answered[0].dtype, answered[0].shape) == (np.uint64, (2, 3))


@pytest.mark.parametrize("loader", LOADERS)
def test_what_differs_from_call_to_call_is_found(path, loader):
    samples = generate({"x": InputSpec("float32", (None, 3))})
    question = Question(("serve",), loader, "serving_default", samples, [])
    assert outputs_that_vary(path, question) == {*("noise", "seeded", "calls", "unseedable", "served_at", "year")}
