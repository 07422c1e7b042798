"""The rungs that lose something: climbed as far as a budget asks, kept as far as the tolerance bears."""

import json

import keras
import numpy as np
import tensorflow as tf
from tests.unit.optimize.small_models import dense_model, stored, text_model

from servegraph.answers.ask import Servable
from servegraph.answers.tolerance import Tolerance
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.optimize.result import Optimized, Step


class TestLossyRungs:
    def ladder(self, tmp_path, budget_bytes=None, min_agreement=0.0, **goal):
        dense_model(tmp_path / "m")
        goal = Goal(budget_bytes, Tolerance(min_agreement), **goal)
        return optimize(tmp_path / "m", tmp_path / "out", goal)

    def test_where_no_budget_asks_for_them_a_budget_is_what_they_need(self, tmp_path):
        dense_model(tmp_path / "m").export(tmp_path / "m", verbose=False)
        result = optimize(tmp_path / "m", tmp_path / "out", Goal())
        needs = {step.name: step.needs for step in result.steps}
        assert (needs["strip"], needs["halve"]) == ((), ("budget",))
        document = result.to_json()
        assert (document["shortfall"], document["options"]) == (None, [])

    def test_they_are_not_climbed_where_it_fits(self, tmp_path):
        result = self.ladder(tmp_path, 10**9)
        assert result.fits
        assert not any(step.kept for step in result.steps[4:])
        assert stored(tmp_path / "out")[(64, 128)] == "float32"

    def test_without_a_budget_those_that_are_named_are_climbed(self, tmp_path):
        result = self.ladder(tmp_path, rungs=("strip", "share", "halve"))
        assert [step.kept for step in result.steps] == [True, True, True]
        assert result.fits

    def test_the_first_that_fits_is_the_last_that_is_climbed(self, tmp_path):
        size = self.ladder(tmp_path / "lossless", None).after_bytes
        result = self.ladder(tmp_path / "halved", int(size * 0.8))
        assert result.fits
        assert [step.name for step in result.steps if step.kept][-1] == "halve"
        assert stored(tmp_path / "halved/out") == {
            (64, 128): "float16",
            (128,): "float32",
            (128, 5): "float32",
            (5,): "float32",
        }

    def test_int8_has_a_scale_per_output_and_both_loaders_read_it(self, tmp_path):
        result = self.ladder(tmp_path, rungs=("strip", "share", "fold", "halve", "quarter"))
        assert stored(tmp_path / "out")[(64, 128)] == "int8"
        halve, quarter = result.steps[3:]
        assert halve.kept
        assert quarter.kept
        assert quarter.bytes < halve.bytes
        assert 0 < halve.max_abs_diff < quarter.max_abs_diff < 0.2
        request = {"x": np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)}
        with Servable(tmp_path / "out", loader="v2") as v2, Servable(tmp_path / "out", loader="session") as session:
            want, have = v2("serving_default", request), session("serving_default", request)
        assert np.allclose(want["output_0"], have["output_0"], atol=1e-5)

    def test_int4_and_deflated_weights_are_read_back_by_both_loaders(self, tmp_path):
        result = self.ladder(tmp_path, rungs=("strip", "share", "eighth", "compress"))
        by_name = {step.name: step for step in result.steps}
        assert by_name["eighth"].kept
        assert by_name["eighth"].max_abs_diff < 1
        assert "uint8" in stored(tmp_path / "out").values()
        assert (64, 128) not in stored(tmp_path / "out")

    def test_short_names_save_most_of_a_small_graph_and_no_answer(self, tmp_path):
        text_model(tmp_path / "m")
        long = optimize(tmp_path / "m", tmp_path / "long", Goal())
        assert "shorten" not in {step.name for step in long.steps if step.kept}
        goal = Goal(rungs=("strip", "share", "narrow", "fold", "shorten"))
        result = optimize(tmp_path / "m", tmp_path / "short", goal)
        step = result.steps[-1]
        assert step.kept
        assert step.max_abs_diff == 0
        assert result.after_bytes < 0.7 * long.after_bytes
        again = optimize(tmp_path / "short", tmp_path / "again", Goal(rungs=("shorten",)))
        assert again.steps[-1].reason in ("nothing to do", "saves nothing")

    def test_a_rung_beyond_the_tolerance_is_undone(self, tmp_path):
        dense_model(tmp_path / "m")
        goal = Goal(1, Tolerance(max_abs_diff=1e-9), rungs=("strip", "share", "quarter"))
        result = optimize(tmp_path / "m", tmp_path / "out", goal)
        assert not result.steps[-1].kept
        assert "more than 1e-09" in result.steps[-1].reason
        assert stored(tmp_path / "out")[(64, 128)] == "float32"
        shortfall = result.shortfall()
        assert shortfall is not None
        assert "quarter would reach" in shortfall.message
        assert shortfall.fix.startswith("Add the rungs that --rungs left out: narrow, fold, ")
        assert "Allow more loss" in shortfall.fix
        assert "in a pipeline min_agreement" in shortfall.fix
        assert "quota" in shortfall.fix
        assert "in a pipeline budget" in shortfall.fix

    def test_amounts_of_given_records_decide_and_those_of_made_up_ones_do_not(self, tmp_path):
        dense_model(tmp_path / "m", units=1)
        rows = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
        (tmp_path / "s.jsonl").write_text("".join(json.dumps({"x": row.tolist()}) + "\n" for row in rows))
        for rung, is_kept in (("quarter", True), ("eighth", False)):
            goal = Goal(rungs=("strip", "share", rung))
            result = optimize(tmp_path / "m", tmp_path / rung, goal, str(tmp_path / "s.jsonl"))
            assert result.steps[-1].kept == is_kept, result.steps[-1]
        assert "agreement" in result.steps[-1].reason
        assert optimize(tmp_path / "m", tmp_path / "made-up", goal).steps[-1].kept

    def test_the_figures_are_those_of_the_last_rung_that_was_kept(self):
        steps = [Step("quarter", "", True, 9, 0.6, 0.5), Step("eighth", "", True, 8, 0.4, 1.0), Step("x", "", False, 7)]
        figures = Optimized(9, 8, None, tuple(steps), 4, True, 1, "", ()).figures()
        assert (figures["agreement"], figures["max_abs_diff"]) == (1.0, 0.4)

    def test_a_rung_that_was_too_slow_takes_no_more_loss(self):
        steps = (
            Step("quarter", "", True, 9, 0.6, 0.5),
            Step("resident", "", False, 8, 0.6, 0.5, reason="does not pay"),
        )
        result = Optimized(20, 9, 5, steps, 4, False, 1, "", ())
        shortfall = result.shortfall()
        assert shortfall is not None
        assert "to go on" not in shortfall.message.lower()
        assert "loss" not in shortfall.fix
        assert "resident" not in {option.name for option in result.options()}

    def test_where_all_was_kept_more_loss_is_no_advice(self, tmp_path):
        dense_model(tmp_path / "m")
        shortfall = optimize(tmp_path / "m", tmp_path / "out", Goal(1, Tolerance(0))).shortfall()
        assert shortfall is not None
        assert "to go on" not in shortfall.message.lower()
        assert "loss" not in shortfall.fix
        assert "rungs left out" not in shortfall.fix
        assert "quota" in shortfall.fix

    def test_a_rung_that_saves_nothing_within_the_tolerance_says_what_it_broke(self, tmp_path):
        """As int8 the large kernel changes the answers, and the small one alone does not make up for its graph."""
        model = dense_model(tmp_path / "m", scale=1000.0, units=1)
        model.layers[2].set_weights([np.ones((128, 1)), np.zeros(1)])
        model.export(tmp_path / "m", verbose=False)
        goal = Goal(1, Tolerance(0, max_abs_diff=1.0), rungs=("strip", "share", "quarter"))
        result = optimize(tmp_path / "m", tmp_path / "out", goal)
        *_, before, step = result.steps
        assert not step.kept
        assert "more than 1" in step.reason
        assert step.bytes < before.bytes
        shortfall = result.shortfall()
        assert shortfall is not None
        assert "quarter would reach" in shortfall.message
        assert step.needs == ("max_abs_diff",)
        document = result.to_json()
        assert document["shortfall"] == shortfall.parts()
        options = {option["name"]: option for option in document["options"]}
        undone = {"name": "quarter", "what": step.what, "needs": step.needs}
        assert options["quarter"] == {**undone, "bytes": step.bytes, "agreement": step.agreement}
        assert options["halve"]["needs"] == ("rungs",)
        assert options["trim"]["needs"] == ("rungs", "samples")
        assert "resident" not in options

    def test_only_the_weights_that_break_the_tolerance_stay_wide(self, tmp_path):
        model = dense_model(tmp_path / "m", scale=1000.0)
        model.layers[2].set_weights([np.ones((128, 5)), np.zeros(5)])
        model.export(tmp_path / "m", verbose=False)
        goal = Goal(tolerance=Tolerance(0, max_abs_diff=1.0), rungs=("strip", "share", "quarter"))
        assert optimize(tmp_path / "m", tmp_path / "out", goal).steps[-1].kept
        found = stored(tmp_path / "out")
        assert (found[64, 128], found[128, 5]) == ("float32", "int8")

    def test_weights_beyond_float16_become_bfloat16(self, tmp_path):
        dense_model(tmp_path / "m", scale=1e6)
        goal = Goal(tolerance=Tolerance(0), rungs=("strip", "halve"))
        optimize(tmp_path / "m", tmp_path / "out", goal)
        assert stored(tmp_path / "out")[(64, 128)] == "bfloat16"

    def test_weights_that_shall_be_kept_are(self, tmp_path):
        self.ladder(tmp_path, rungs=("strip", "share", "halve"), keep=("*kernel*", "variables/*"))
        assert stored(tmp_path / "out")[(64, 128)] == "float32"

    def test_the_least_agreement_is_what_undoes_it(self, tmp_path):
        """The gate sees a rung that destroys the model: int8 of weights that one outlier per column dwarfs."""
        x = keras.Input((64,), name="x")
        model = keras.Model(x, keras.layers.Dense(32)(x))
        kernel = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
        kernel[0], kernel[:, 0] = 1e5, 1e5
        model.set_weights([kernel, np.zeros(32)])
        model.export(tmp_path / "m", verbose=False)
        rows = [np.random.default_rng(i).normal(size=64) for i in range(50)]
        for row in rows:
            row[0] = 0.0
        (tmp_path / "s.jsonl").write_text("".join(json.dumps({"x": row.tolist()}) + "\n" for row in rows))
        goal = Goal(budget_bytes=1, rungs=("strip", "share", "quarter"))
        result = optimize(tmp_path / "m", tmp_path / "out", goal, str(tmp_path / "s.jsonl"))
        assert result.steps[-1].kept or "agreement" in result.steps[-1].reason
        with Servable(tmp_path / "out") as after, Servable(tmp_path / "m") as before:
            request = {"x": np.array(rows, np.float32)}
            want, have = (s("serving_default", request)["output_0"].argmax(-1) for s in (before, after))
        assert (want == have).mean() >= 0.99


def test_no_accuracy_is_given_for_golden_requests(tmp_path):
    """Room for them is kept where a rung costs names alone; a lossy one is not climbed for it."""
    model = tf.Module()
    wide = np.random.default_rng(0).normal(size=(8, 40_000)).astype(np.float32)
    model.first, model.last = tf.Variable(wide), tf.Variable(wide.T / 200)

    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, "x")])
    def serve(x):
        return {"y": tf.nn.relu(x @ model.first) @ model.last}

    tf.saved_model.save(model, str(tmp_path / "m"), signatures=serve)
    rungs = ("strip", "fold", "halve", "quarter")
    halved = optimize(tmp_path / "m", tmp_path / "halved", Goal(rungs=rungs[:3]))
    budget = halved.steps[-1].bytes + halved.golden_bytes - 1
    result = optimize(tmp_path / "m", tmp_path / "out", Goal(budget, rungs=rungs))
    assert result.fits
    assert [step.name for step in result.steps if step.kept][-1] == "halve"
    assert f"leaves room for {result.golden_requests} of {halved.golden_requests} golden" in str(result.notes)
