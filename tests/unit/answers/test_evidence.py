"""What agreement with the original leaves open is said, with what to give."""

import numpy as np
import pytest

from servegraph.answers.evidence import Evidence, Question
from servegraph.answers.samples import Samples


@pytest.mark.parametrize("rows", [4, 16])
def test_samples_of_one_class_are_to_have_others_beside_them(rows: int) -> None:
    decided = np.tile(np.float32([0.9, 0.1]), (rows, 1)) + np.float32([[1e-3], [-1e-3]] * (rows // 2)) * [1, -1]
    samples = Samples({"x": np.arange(rows, dtype=np.float32)}, rows, generated=False)
    answers = [{"p": part} for part in np.split(decided.astype(np.float32), [1, 3])]
    evidence = Evidence((Question(("serve",), "session", "serving_default", samples, answers),), {})
    [weakness] = evidence.weaknesses
    assert weakness.endswith("give samples of other classes too.")
