"""The rungs for the served model: tables that stay int8 in memory, weights as constants of the graph."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.answers.evidence import Evidence, Question
from servegraph.answers.samples import Samples
from servegraph.answers.tolerance import Tolerance
from servegraph.optimize import climb, speed
from servegraph.optimize.constants import as_constants
from servegraph.optimize.fold import fold
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.optimize.resident import keep_resident, stay_resident
from servegraph.optimize.rungs import RUNGS, planned
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.weights import loosen
from servegraph.savedmodel.bundle_reader import BundleReader

IDS = {"ids": np.array([[0, 5, 599], [7, 7, 1]], np.int32)}


class Texts(tf.Module):
    """Two tables, of which one is read as a whole too, and a projection."""

    def __init__(self):
        super().__init__()
        draw = np.random.default_rng(0)
        self.words = tf.Variable(draw.normal(size=(600, 16)).astype(np.float32), name="words")
        self.tied = tf.Variable(draw.normal(size=(600, 16)).astype(np.float32), name="tied")
        self.project = tf.Variable(draw.normal(size=(16, 100)).astype(np.float32), name="project")

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.int32, name="ids")])
    def serve(self, ids):
        mean = tf.reduce_mean(tf.nn.embedding_lookup(self.words, ids) + tf.gather(self.tied, ids), axis=1)
        return {"scores": mean @ self.project, "next": mean @ tf.transpose(self.tied)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "model"
    made = Texts()
    tf.saved_model.save(made, str(path), signatures={"serving_default": made.serve})
    return path


def answers(path, loader="session"):
    with Servable(path, loader=loader) as servable:
        return servable("serving_default", IDS)


def draft_of(path, rung):
    """Return the model with every weight stored as a rung plans it."""
    draft = loosen(fold(draft_reader.read(path)))
    plan = next(found.plan for found in RUNGS if found.name == rung)
    with draft.tensors() as tensors:
        return replace(draft, forms={**draft.forms, **planned(draft, plan, tensors)})


def variables(path):
    with BundleReader(storage.open_dir(path)) as reader:
        return {key: (entry.dtype, entry.shape) for key, entry in reader.entries.items()}


def handles(path):
    graph = tf.Graph()
    with tf.compat.v1.Session(graph=graph) as session, graph.as_default():
        tf.compat.v1.saved_model.load(session, ["serve"], str(path))
    ops = graph.get_operations()
    return {
        op.get_attr("shared_name").decode().split("/")[-2]: op.get_attr("dtype")
        for op in ops
        if op.type == "VarHandleOp"
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
class TestResident:
    @pytest.fixture(scope="class")
    def resident(self, model, tmp_path_factory):
        path = tmp_path_factory.mktemp("resident") / "model"
        draft_writer.write(keep_resident(fold(draft_reader.read(model))), path)
        return path

    @pytest.mark.parametrize("loader", ["session", "v2"])
    def test_answers_are_off_by_no_more_than_int8_rounds(self, model, resident, loader):
        before, after = answers(model), answers(resident, loader)
        for name in before:
            assert 0 < np.abs(before[name] - after[name]).max() < 0.02 * np.abs(before[name]).max()

    def test_only_a_table_that_is_gathered_alone_is_held_as_int8(self, resident):
        table = [shape for dtype, shape in variables(resident).values() if dtype == "int8"]
        assert table == [(600, 16)]
        dtypes = sorted(op.name for op in handles(resident).values())
        assert dtypes.count("int8") == 1

    def test_a_table_that_is_to_be_kept_stays(self, model, tmp_path):
        draft = fold(draft_reader.read(model, keep=("words*",)))
        assert keep_resident(draft) == draft

    def test_other_rungs_leave_what_is_resident(self, model, tmp_path):
        draft = keep_resident(fold(draft_reader.read(model)))
        again = fold(draft)
        draft_writer.write(again, tmp_path / "model")
        assert "int8" in {dtype for dtype, _ in variables(tmp_path / "model").values()}
        np.testing.assert_allclose(answers(tmp_path / "model")["scores"], answers(model)["scores"], atol=0.2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
class TestStayingAsStored:
    @pytest.fixture(scope="class")
    def large(self, tmp_path_factory):
        """An embedding of 41 MB, of which the export holds one copy: turned back as a whole it is in blocks."""
        path = tmp_path_factory.mktemp("large") / "model"
        made = tf.Module()
        made.table = tf.Variable(tf.random.stateless_normal([40_000, 256], [1, 0]))
        made.weights = tf.Variable(tf.random.stateless_normal([256, 4], [1, 1]))
        serve = tf.function(
            lambda ids: {"scores": tf.reduce_mean(tf.gather(made.table, ids), axis=1) @ made.weights},
            [tf.TensorSpec([None, 3], tf.int32, name="ids")],
        )
        tf.saved_model.save(made, str(path), signatures=serve)
        return path

    @pytest.mark.parametrize(("rung", "dtype"), [("halve", "float16"), ("quarter", "int8")])
    @pytest.mark.parametrize("loader", ["session", "v2"])
    def test_rows_have_the_bits_that_the_whole_table_has(self, large, rung, dtype, loader, tmp_path):
        optimize(large, tmp_path / "small", Goal(rungs=("strip", "fold", rung), tolerance=Tolerance(min_agreement=0)))
        draft = stay_resident(draft_of(large, rung))
        draft_writer.write(draft, tmp_path / "resident")
        assert dtype in {op.name for op in handles(tmp_path / "resident").values()}
        assert dtype not in {op.name for op in handles(tmp_path / "small").values()}
        before, after = answers(tmp_path / "small", loader), answers(tmp_path / "resident", loader)
        assert np.array_equal(before["scores"], after["scores"])

    def test_what_is_stored_whole_or_is_small_stays(self, large, model):
        for draft in (fold(draft_reader.read(large)), draft_of(model, "quarter")):
            assert stay_resident(draft) is draft

    def test_with_a_budget_alone_it_is_tried_within_it(self, large, tmp_path):
        result = optimize(large, tmp_path / "out", Goal(budget_bytes=20_700_000, tolerance=Tolerance(min_agreement=0)))
        step = next(step for step in result.steps if step.name == "resident")
        assert step.kept or re.match(r"does not pay: .* times as fast", step.reason)
        assert result.fits


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
class TestConstants:
    @pytest.mark.parametrize("loader", ["session", "v2"])
    def test_only_tables_stay_variables_and_answers_are_the_same(self, model, tmp_path, loader):
        draft_writer.write(as_constants(fold(draft_reader.read(model))), tmp_path / "model")
        before, after = answers(model), answers(tmp_path / "model", loader)
        assert set(variables(tmp_path / "model").values()) == {("float32", (600, 16))}
        for name in before:
            np.testing.assert_allclose(after[name], before[name], rtol=1e-5)

    def test_only_weights_in_their_own_form_move(self, model, tmp_path):
        result = optimize(model, tmp_path / "out", Goal(rungs=("strip", "fold", "halve")), None)
        halved = draft_reader.read(tmp_path / "out")
        assert result.after_bytes < 200_000
        draft_writer.write(as_constants(halved), tmp_path / "constants")
        np.testing.assert_allclose(answers(tmp_path / "constants")["scores"], answers(tmp_path / "out")["scores"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
class TestLadder:
    def test_small_models_are_spared_both_where_they_are_not_named(self, model, tmp_path):
        result = optimize(model, tmp_path / "out", Goal())
        assert "constants" not in {step.name for step in result.steps}
        assert result.steps[-1].name == "resident"
        assert result.steps[-1].reason == "nothing to do"

    def test_what_was_measured_decides(self, model, tmp_path):
        result = optimize(model, tmp_path / "out", Goal(rungs=("strip", "fold", "constants")))
        step = result.steps[-1]
        assert step.kept or "times as fast at batch 1" in step.reason or "of memory" in step.reason

    def test_models_that_do_not_fit_into_the_memory_together_are_not_compared(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(climb, "free_bytes", lambda: 90_000)
        result = optimize(model, tmp_path / "out", Goal(rungs=("fold", "resident")))
        step = result.steps[-1]
        assert not step.kept
        assert step.reason == "not compared: both at once take about 138 kB of memory, and 90.0 kB are free"

    def test_none_may_take_more_memory_than_the_original(self, tmp_path, monkeypatch):
        """Weights in the graph are there several times once it is loaded, here 2 MB against one copy of them."""
        made = tf.Module()
        made.weights = tf.Variable(np.random.default_rng(0).normal(size=(700, 700)).astype(np.float32))
        serve = tf.function(lambda x: {"y": x @ made.weights}, [tf.TensorSpec([None, 700], tf.float32, name="x")])
        tf.saved_model.save(made, str(tmp_path / "model"), signatures=serve)
        monkeypatch.setattr(speed, "ratios", lambda *_: {"batch 1": always(2.0)})
        result = optimize(tmp_path / "model", tmp_path / "out", Goal(rungs=("fold", "constants")))
        assert [step.kept for step in result.steps] == [True, False]
        assert re.fullmatch(r"takes .* MB of memory when it is served, the original .* MB", result.steps[1].reason)


def always(ratio):
    return speed.Ratio(ratio, ratio, ratio)


def test_a_rung_pays_where_one_size_is_faster_and_none_slower():
    assert speed.objection({"batch 1": always(1.2), "batch 32": always(1.0)}, speed.FASTER) == ""
    why = speed.objection({"batch 1": always(1.01), "batch 32": always(1.0)}, speed.FASTER)
    assert "1.00 times as fast at batch 32" in why
    assert speed.objection({"batch 1": always(1.3), "batch 32": always(0.9)}, speed.FASTER)
    assert speed.objection({"batch 1": always(0.98)}, speed.AS_FAST) == ""
    assert speed.objection({"batch 1": always(0.96)}, speed.AS_FAST)


def test_what_may_be_noise_is_no_slower_model():
    assert speed.objection({"batch 1": speed.Ratio(0.96, 0.90, 1.0)}, speed.AS_FAST) == ""


def test_a_ratio_is_of_calls_that_ran_in_the_same_round():
    """A busy moment is in both: here every third round takes ten times as long."""
    rounds = [(busy * 1.0, busy * 2.0) for busy in (1.0, 1.0, 10.0) * 20]
    assert speed.Ratio.of(rounds) == always(0.5)


@pytest.mark.parametrize("count", [5, 60, 1500])
def test_the_interval_holds_what_is_true_about_95_times_in_100(count):
    rounds = np.random.default_rng(0).normal(1.0, 0.1, size=(400, count))
    found = [speed.Ratio.of([(one, 1.0) for one in row]) for row in rounds]
    assert sum(ratio.low <= 1.0 <= ratio.high for ratio in found) / len(found) > 0.9
    assert all(ratio.low <= ratio.value <= ratio.high for ratio in found)


def test_every_signature_is_timed_that_answers_in_its_own_way(tmp_path):
    """The slowest need not be the default; one that takes no other requests than it was asked is left out."""
    spec = [tf.TensorSpec([None], tf.float32, "x")]
    factors = {"serving_default": 1.0, "same": 1.0, "doubled": 2.0, "pairs": 3.0}
    made = {
        name: tf.function(lambda x, by=by: {"y": by * (tf.reshape(x, [2]) if by == factors["pairs"] else x)}, spec)
        for name, by in factors.items()
    }
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"), signatures=made)
    samples = Samples({"x": np.ones(2, np.float32)}, rows=2, generated=True)
    asked = [Question(("serve",), "session", n, samples, [{"y": np.full(2, by)}]) for n, by in factors.items()]
    found = speed.ratios(tmp_path / "m", tmp_path / "m", Evidence(tuple(asked), {}), speed.AS_FAST)
    assert set(found) == {f"batch {size} of {name!r}" for size in (1, 32) for name in ("serving_default", "doubled")}
