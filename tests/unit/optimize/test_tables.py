"""Large vocabularies are restored into their tables; small ones, and what is computed, stay in the graph."""

import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.inspect_graph.inspect import inspect_directory
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.reachability import training_baggage

WORDS = [f"word {number:05d} é" for number in range(1500)]


class Lookups(tf.Module):
    def __init__(self, words):
        super().__init__()
        ids = tf.range(1, len(words) + 1, dtype=tf.int64)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(words), ids), 0)
        back = tf.lookup.KeyValueTensorInitializer(ids, tf.constant(words))
        self.names = tf.lookup.StaticHashTable(back, "unknown")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def serve(self, word):
        ids = self.table.lookup(word)
        return {"id": ids, "next": self.names.lookup(ids + 1)}


def saved(path, words):
    model = Lookups(words)
    tf.saved_model.save(model, str(path), signatures=model.serve)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_large_vocabulary_is_restored_and_answers_as_before(tmp_path):
    saved(tmp_path / "model", WORDS)
    result = optimize(tmp_path / "model", tmp_path / "once", Goal())
    assert {step.name: step.kept for step in result.steps}["tables"]
    again = optimize(tmp_path / "once", tmp_path / "twice", Goal())
    assert again.after_bytes <= result.after_bytes
    asked = {"word": np.array([WORDS[0], WORDS[700], "none of them", WORDS[1499]], object)}
    with Servable(tmp_path / "model", loader="session") as servable:
        expected = servable("serving_default", asked)
    for path in ("once", "twice"):
        assert (tmp_path / path / "saved_model.pb").stat().st_size < 20_000
        for loader in ("session", "v2"):
            with Servable(tmp_path / path, loader=loader) as servable:
                answer = servable("serving_default", asked)
            for name, values in expected.items():
                assert answer[name].tolist() == values.tolist()
        found = inspect_directory(storage.open_dir(tmp_path / path), verify=True)
        assert [each for each in found.findings if each.severity == "error"] == []
        assert training_baggage(storage.open_dir(tmp_path / path)) == []
        with BundleReader(storage.open_dir(tmp_path / path)) as tensors:
            # Two tables of the same words and ids: each column is stored once.
            assert sorted(entry.dtype for entry in tensors.entries.values()) == ["int64", "string"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_small_vocabulary_stays_in_the_graph(tmp_path):
    saved(tmp_path / "model", WORDS[:100])
    result = optimize(tmp_path / "model", tmp_path / "out", Goal())
    step = {step.name: step for step in result.steps}["tables"]
    assert (step.kept, step.reason) == (False, "nothing to do")
    assert not (tmp_path / "out" / "variables").exists()
