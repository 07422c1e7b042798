"""The ladder on models made here: what goes, what stays, and that answers are the same bits."""

import gzip
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.answers.tolerance import Tolerance
from servegraph.errors import DataError, InputError, ModelError
from servegraph.inspect_graph.inspect import inspect_directory
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.optimize.result import Optimized, Step
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.savedmodel.reachability import training_baggage

tf1 = tf.compat.v1


def keras_model():
    keras.utils.set_random_seed(0)
    x = keras.Input((16, 16, 3), name="image")
    h = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3)(x))
    h = keras.layers.Dropout(0.5)(keras.layers.Flatten()(h))
    model = keras.Model(x, keras.layers.Dense(4, activation="softmax")(h))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(np.random.rand(8, 16, 16, 3), np.arange(8) % 4, verbose=0)
    return model


def keras_export(path):
    keras_model().export(path, verbose=False)


def keras_saved_with_optimizer(path):
    tf.saved_model.save(keras_model(), str(path))


def text_model(path):
    words = keras.layers.TextVectorization(50, output_sequence_length=6)
    words.adapt(["alpha beta gamma", "a b alpha"])
    layers = [keras.Input((1,), dtype="string"), words, keras.layers.Embedding(50, 8)]
    layers += [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3, activation="softmax")]
    keras.Sequential(layers).export(path, verbose=False)


class Module(tf.Module):
    """Two signatures, a counter that serving changes, a mutable table, two equal weights and an unused one."""

    def __init__(self):
        super().__init__()
        self.first = tf.Variable(tf.random.stateless_normal([4, 300], [1, 2]))
        self.equal = tf.Variable(self.first)
        self.unused = tf.Variable(tf.zeros([5000]))
        self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        self.table.insert(tf.constant(["alpha", "beta"]), tf.constant([1, 2], tf.int64))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def score(self, x):
        return {"y": x @ self.first + x @ self.equal}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def lookup(self, word):
        return {"id": self.table.lookup(word)}


def module(path):
    made = Module()
    tf.saved_model.save(made, str(path), signatures={"serving_default": made.score, "lookup": made.lookup})


class Counter(tf.Module):
    def __init__(self):
        super().__init__()
        self.count = tf.Variable(0.0)
        self.weight = tf.Variable(0.0)  # equal now, and no longer after the first request

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x):
        return {"y": x * 0 + self.weight, "n": x * 0 + self.count.assign_add(1.0)}


def tf1_model(path):
    vocabulary = path.parent / "vocabulary.txt"
    vocabulary.write_text("a\nb\nalpha\nbeta\n")
    unused = path.parent / "unused.txt"
    unused.write_text("never read\n" * 500)
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        x = tf1.placeholder(tf.string, [None], name="x")
        text = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        table = tf.lookup.StaticHashTable(text, 4)
        tf1.add_to_collection(tf1.GraphKeys.ASSET_FILEPATHS, tf.constant(str(unused)))
        parts = tf1.get_variable("e", [5, 8], use_resource=False, partitioner=tf1.fixed_size_partitioner(2))
        weight = tf1.get_variable("w", [8, 3], use_resource=False)
        logits = tf.nn.embedding_lookup(parts, table.lookup(x)) @ weight
        train = tf1.train.AdamOptimizer().minimize(tf.reduce_mean(logits**2))
        session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
        session.run(train, {x: ["a", "b"]})
        signature = tf1.saved_model.predict_signature_def({"x": x}, {"p": tf.nn.softmax(logits)})
        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            main_op=tf1.tables_initializer(),
            assets_collection=tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS),
        )
        builder.save()


MODELS = {
    "keras_export": (keras_export, 0.55),
    "keras_saved_with_optimizer": (keras_saved_with_optimizer, 0.55),
    "text": (text_model, 0.65),
    "module": (module, 0.7),
    "tf1": (tf1_model, 0.45),
}


@pytest.fixture(scope="module", params=MODELS)
def optimized(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    make, ratio = MODELS[request.param]
    make(path / "original")
    return path, optimize(path / "original", path / "optimized", Goal()), ratio


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
class TestEveryModel:
    def test_it_becomes_smaller_and_keeps_every_bit(self, optimized):
        _, result, ratio = optimized
        assert result.after_bytes < ratio * result.before_bytes
        steps = {step.name: step for step in result.steps}
        assert steps["strip"].kept
        assert {step.agreement for step in steps.values()} <= {1.0, None}
        assert all(steps[name].max_abs_diff in (None, 0.0) for name in ("strip", "share", "narrow"))
        assert steps["fold"].max_abs_diff <= 1e-5
        assert not any(steps[name].kept for name in ("halve", "quarter", "eighth", "compress"))

    def test_both_loaders_serve_the_result(self, optimized):
        path, _, _ = optimized
        with (
            Servable(path / "optimized", loader="session") as session,
            Servable(path / "optimized", loader="v2") as v2,
        ):
            assert session.signatures == v2.signatures

    def test_nothing_of_training_is_left(self, optimized):
        assert training_baggage(storage.open_dir(optimized[0] / "optimized")) == []

    def test_golden_requests_are_recorded_with_their_answers(self, optimized):
        path, result, _ = optimized
        lines = gzip.decompress((path / "optimized" / GOLDEN_FILE).read_bytes()).splitlines()
        assert len(lines) == result.golden_requests >= 1
        kept = [step for step in result.steps if step.kept]
        assert result.after_bytes == kept[-1].bytes + result.golden_bytes
        document = json.loads(lines[0])
        with Servable(path / "optimized", loader="session") as servable:
            dtypes = {"image": np.float32, "x": np.float32, "x_1": np.float32}
            request = {
                name: np.array(value, dtypes.get(name) if not isinstance(np.ravel(value)[0], str) else object)
                for name, value in document["inputs"].items()
            }
            answer = servable(document["signature_name"], request)
        for name, value in document["outputs"].items():
            if answer[name].dtype.kind == "f":
                assert np.array_equal(answer[name], np.array(value, np.float32))

    def test_optimizing_again_changes_no_answer_and_saves_nothing(self, optimized, tmp_path):
        path, result, _ = optimized
        again = optimize(path / "optimized", tmp_path / "again", Goal())
        assert {step.agreement for step in again.steps} <= {1.0, None}
        assert again.after_bytes <= result.after_bytes * 1.01 + 200


@pytest.mark.parametrize(
    ("make", "rungs"),
    [
        (keras_export, ("strip", "quarter")),
        (keras_export, ("strip", "eighth", "compress")),
        (text_model, ("strip", "resident")),
    ],
)
def test_what_is_stored_in_a_smaller_form_is_inspected_like_any_other(make, rungs, tmp_path):
    make(tmp_path / "model")
    optimize(tmp_path / "model", tmp_path / "small", Goal(rungs=rungs, tolerance=Tolerance(min_agreement=0)))
    small = storage.open_dir(tmp_path / "small")
    assert [found for found in inspect_directory(small, verify=True).findings if found.severity == "error"] == []
    assert training_baggage(small) == []


def test_equal_weights_are_one_variable_unless_serving_changes_them(tmp_path):
    module(tmp_path / "module")
    result = optimize(tmp_path / "module", tmp_path / "shared", Goal())
    assert [step.name for step in result.steps if step.kept] == ["strip", "share", "fold"]
    with BundleReader(storage.open_dir(tmp_path / "shared")) as tensors:
        assert [e.shape for e in tensors.entries.values() if e.shape == (4, 300)] == [(4, 300)]

    counter = Counter()
    tf.saved_model.save(counter, str(tmp_path / "counter"), signatures=counter.serve)
    optimize(tmp_path / "counter", tmp_path / "counted", Goal())
    with Servable(tmp_path / "counted", loader="session") as servable:
        request = {"x": np.zeros(1, np.float32)}
        answers = [servable("serving_default", request) for _ in range(2)]
    assert [float(answer["n"][0]) for answer in answers] == [1.0, 2.0]
    assert [float(answer["y"][0]) for answer in answers] == [0.0, 0.0]


def test_stray_files_stay_behind_and_known_ones_go_along(tmp_path):
    module(tmp_path / "m")
    (tmp_path / "m/events.out.tfevents.1.host").write_bytes(b"x" * 5000)
    (tmp_path / "m/model.ckpt-3.index").write_bytes(b"x")
    (tmp_path / "m/assets.extra").mkdir()
    (tmp_path / "m/assets.extra/tf_serving_warmup_requests").write_bytes(b"")
    optimize(tmp_path / "m", tmp_path / "out", Goal())
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets.extra/tf_serving_warmup_requests",
        "assets.extra/golden_requests.jsonl.gz",
    }


def test_a_graph_of_version_1_that_is_not_taken_apart_keeps_its_assets(tmp_path):
    tf1_model(tmp_path / "m")
    saved = parse_saved_model(str(tmp_path / "m"))
    graph = saved.meta_graphs[0].graph_def
    restored = next(node for node in graph.node if node.op == "Assign" and node.input[1].startswith("save/RestoreV2"))
    twice = graph.node.add(name="restored_twice", op="AddV2", input=[restored.input[1]] * 2)
    twice.attr["T"].type = tf.float32.as_datatype_enum
    restored.input[1] = twice.name
    (tmp_path / "m/saved_model.pb").write_bytes(saved.SerializeToString())
    (tmp_path / "m/notes.md").write_text("stray")
    result = optimize(tmp_path / "m", tmp_path / "out", Goal())
    assert result.steps[0].kept
    assert "AddV2" in str(result.notes)
    assert {path.name for path in (tmp_path / "out/assets").iterdir()} == {"vocabulary.txt", "unused.txt"}
    assert not (tmp_path / "out/notes.md").exists()


def test_a_budget_that_is_not_met_says_so_and_keeps_the_best(tmp_path):
    module(tmp_path / "m")
    result = optimize(tmp_path / "m", tmp_path / "out", Goal(budget_bytes=10))
    assert not result.fits
    assert result.after_bytes < result.before_bytes
    assert (tmp_path / "out/saved_model.pb").is_file()


def test_samples_are_asked_and_what_is_no_input_is_passed_over(tmp_path):
    module(tmp_path / "m")
    (tmp_path / "s.jsonl").write_text('{"x": [1, 2, 3, 4], "label": "a"}\n{"x": [0, 0, 0, 1]}\n')
    result = optimize(tmp_path / "m", tmp_path / "out", Goal(), str(tmp_path / "s.jsonl"))
    assert result.sample_rows == 2
    assert not result.samples_generated


def test_golden_requests_that_the_budget_has_no_room_for_are_noted(tmp_path):
    module(tmp_path / "m")
    result = optimize(tmp_path / "m", tmp_path / "out", Goal(1, rungs=("strip",)))
    assert (result.golden_requests, result.golden_bytes) == (0, 0)
    assert any("no golden requests" in note and "no room" in note for note in result.notes)


def test_golden_requests_do_without_what_is_not_finite(tmp_path):
    model = tf.Module()
    model.w = tf.Variable([1.0, 2.0])

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def serve(x):
        return {"sum": x @ model.w[:, None], "log": tf.math.log(-1.0 - tf.abs(x))}

    tf.saved_model.save(model, str(tmp_path / "m"), signatures=serve)
    result = optimize(tmp_path / "m", tmp_path / "out", Goal(rungs=("strip",)))
    lines = gzip.decompress((tmp_path / "out" / GOLDEN_FILE).read_bytes()).splitlines()
    assert len(lines) == result.golden_requests > 0
    assert {tuple(json.loads(line)["outputs"]) for line in lines} == {("sum",)}
    assert any("not in the golden requests: log" in note for note in result.notes)


@pytest.mark.parametrize("line", ['{"x": [1, 2]}', '{"x": ["a", 2, 3, 4]}', "{", '{"z": 1}', ""])
def test_bad_samples_are_refused(tmp_path, line):
    module(tmp_path / "m")
    (tmp_path / "s.jsonl").write_text(line + "\n")
    with pytest.raises(DataError):
        optimize(tmp_path / "m", tmp_path / "out", Goal(), str(tmp_path / "s.jsonl"))
    assert not (tmp_path / "out").exists()


def test_what_is_no_model_or_no_goal_is_refused(tmp_path):
    with pytest.raises(ModelError):
        optimize(tmp_path, tmp_path / "out", Goal())
    module(tmp_path / "m")
    with pytest.raises(InputError):
        optimize(tmp_path / "m", tmp_path / "out", Goal(rungs=("strip", "polish")))
    (tmp_path / "m/saved_model.pb").write_bytes(b"\xff" * 50)
    with pytest.raises(ModelError) as caught:
        optimize(tmp_path / "m", tmp_path / "out", Goal())
    assert caught.value.code == "GRAPH_CORRUPT"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def flip_a_byte(shard):
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(content)


def cut_in_half(shard):
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


@pytest.mark.parametrize(
    ("code", "damage"),
    [
        ("CRC_MISMATCH", flip_a_byte),
        ("TRUNCATED_SHARD", cut_in_half),
        ("MISSING_SHARD", lambda shard: shard.unlink()),
        ("NO_VARIABLES", lambda shard: shutil.rmtree(shard.parent)),
    ],
)
def test_damaged_variables_are_named_and_nothing_is_written(tmp_path, code, damage):
    dense_model(tmp_path / "m")
    (shard,) = (tmp_path / "m/variables").glob("*.data-*")
    damage(shard)
    with pytest.raises(ModelError) as caught:
        optimize(tmp_path / "m", tmp_path / "out", Goal())
    assert caught.value.code == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def dense_model(path, scale=1.0, units=5):
    keras.utils.set_random_seed(0)
    x = keras.Input((64,), name="x")
    model = keras.Model(x, keras.layers.Dense(units)(keras.layers.Dense(128, activation="relu")(x)))
    model.layers[1].set_weights([model.layers[1].get_weights()[0] * scale, np.ones(128)])
    model.export(path, verbose=False)
    return model


def stored(path):
    with BundleReader(storage.open_dir(path)) as tensors:
        return {entry.shape: entry.dtype for entry in tensors.entries.values()}


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
