"""What a rung may do to the answers: a session shows every bit, `tf.saved_model.load` may fuse operations differently."""

import numpy as np
import pytest

from servegraph.answers.compare import Agreement
from servegraph.answers.evidence import Evidence, Question
from servegraph.answers.gate import Measured, closest, objection
from servegraph.answers.samples import Samples
from servegraph.answers.tolerance import Tolerance

SAMPLES = Samples({"x": np.zeros([1, 1], np.float32)}, 1, generated=True)


def evidence(*loaders):
    return Evidence(tuple(Question(("serve",), loader, "serving_default", SAMPLES, []) for loader in loaders), {})


def differing(loader, relative_diff):
    agreement = Agreement(1, relative_diff, relative_diff, relative_diff, 1.0, 0)
    return [Measured(loader, agreement, agreement, None)]


@pytest.mark.parametrize(
    ("loaders", "asked", "relative_diff", "is_taken"),
    [
        (("session", "v2"), "session", 0.0, True),
        (("session", "v2"), "session", 1e-7, False),
        (("session", "v2"), "v2", 1e-6, True),
        (("session", "v2"), "v2", 1e-4, False),
    ],
)
def test_a_rung_without_loss(loaders, asked, relative_diff, is_taken):
    reason = objection(differing(asked, relative_diff), evidence(*loaders), "none", Tolerance())
    assert (reason == "") == is_taken


def asked(loader, value, name="y", samples=SAMPLES):
    return Question(("serve",), loader, "serving_default", samples, [{name: np.array([[value, 0]], np.float32)}])


@pytest.mark.parametrize(
    ("in_session", "given", "difference"),
    [
        (asked("session", 1.5), 2.0, 0.0),  # as it answered itself through this loader
        (asked("session", 1.5), 1.5, 0.0),  # as it answered in a session: other operations were fused
        (asked("session", 1.5), 1.25, 0.25),  # the closer of both
        (asked("session", 1.5, name="z"), 1.5, 0.5),  # no answer to the same
        (asked("session", 1.5, samples=Samples({"x": np.ones([1, 1])}, 1, generated=True)), 1.5, 0.5),
    ],
)
def test_through_another_loader_an_answer_may_be_that_of_a_session(
    monkeypatch, tmp_path, in_session, given, difference
):
    through_v2 = asked("v2", 2.0)
    found = closest(Evidence((in_session, through_v2), {}), through_v2, [{"y": np.array([[given, 0]], np.float32)}])
    assert found.max_abs_diff == difference
