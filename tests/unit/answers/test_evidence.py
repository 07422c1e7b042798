"""What agreement with the original leaves open is said, with what to give."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.evidence import Evidence, Question
from servegraph.answers.original import ask_original
from servegraph.answers.samples import Samples
from servegraph.rewriting import draft_reader
from servegraph.savedmodel.graph_reader import read_saved_model

v1 = tf.compat.v1


@pytest.mark.parametrize("rows", [4, 16])
def test_samples_of_one_class_are_to_have_others_beside_them(rows: int) -> None:
    decided = np.tile(np.float32([0.9, 0.1]), (rows, 1)) + np.float32([[1e-3], [-1e-3]] * (rows // 2)) * [1, -1]
    samples = Samples({"x": np.arange(rows, dtype=np.float32)}, rows, generated=False)
    answers = [{"p": part} for part in np.split(decided.astype(np.float32), [1, 3])]
    evidence = Evidence((Question(("serve",), "session", "serving_default", samples, answers),), {})
    [weakness] = evidence.weaknesses
    assert weakness.endswith("give samples of other classes too.")


def test_what_an_estimator_evaluates_with_is_not_asked(tmp_path: Path) -> None:
    """A metric's value and its update in one request answer in whatever order they run."""
    builder = v1.saved_model.Builder(str(tmp_path / "modes"))
    for tag, method in (("eval", "supervised/eval"), ("serve", "serving/predict")):
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None], name="x")
            sides = [{n: v1.saved_model.build_tensor_info(t)} for n, t in (("x", x), ("y", 2.0 * x))]
            signatures = {tag: v1.saved_model.build_signature_def(*sides, f"tensorflow/{method}")}
            if tag == "eval":
                builder.add_meta_graph_and_variables(session, [tag], signatures)
            else:
                builder.add_meta_graph([tag], signatures)
    builder.save()
    graph = read_saved_model(storage.open_dir(tmp_path / "modes"))
    found = ask_original(tmp_path / "modes", graph, draft_reader.read(tmp_path / "modes").definitions, None)
    assert {question.tags for question in found.questions} == {("serve",)}
    assert "Not asked: eval of ['eval']: what trains or evaluates is not served" in found.doubts
