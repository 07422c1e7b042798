"""What a rung may do to the answers: a session shows every bit, `tf.saved_model.load` may fuse operations differently."""

import numpy as np
import pytest

from servegraph.answers.compare import Agreement
from servegraph.answers.evidence import Evidence, Question
from servegraph.answers.gate import Measured, objection
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
        (("session", "v2"), "v2", 1e-4, True),  # of a deep net, whose session has shown every bit
        (("session", "v2"), "v2", 1e-2, False),
        (("v2",), "v2", 1e-6, True),
        (("v2",), "v2", 1e-4, False),  # nothing else shows it
    ],
)
def test_a_rung_without_loss(loaders, asked, relative_diff, is_taken):
    reason = objection(differing(asked, relative_diff), evidence(*loaders), "none", Tolerance())
    assert (reason == "") == is_taken
