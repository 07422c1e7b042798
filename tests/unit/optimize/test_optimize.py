"""The ladder on models made here: what goes, what stays, and that answers are the same bits."""

import gzip
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model
from tests.unit.optimize.small_models import (
    Counter,
    dense_model,
    keras_export,
    keras_saved_with_optimizer,
    module,
    text_model,
    tf1_model,
)

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.answers.tolerance import Tolerance
from servegraph.errors import DataError, InputError, ModelError
from servegraph.inspect_graph.inspect import inspect_directory
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.savedmodel.reachability import training_baggage

tf1 = tf.compat.v1

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


def test_ragged_and_sparse_outputs_are_not_in_the_golden_requests(tmp_path):
    """A server answers them whole, if at all; a model is asked for their parts."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "lengths")])
    def both(lengths):
        return {"ragged": tf.ragged.range(lengths), "sum": lengths + 1}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "lengths")])
    def ragged(lengths):
        return {"ragged": tf.ragged.range(lengths)}

    for serve, why in ((both, "Ragged or sparse, and not in the golden requests: ragged."), (ragged, "all that is")):
        path, out = tmp_path / why / "m", tmp_path / why / "out"
        tf.saved_model.save(tf.Module(), str(path), signatures=serve)
        result = optimize(path, out, Goal(rungs=("strip",)))
        assert why in str(result.notes)
        lines = gzip.decompress((out / GOLDEN_FILE).read_bytes()).splitlines() if result.golden_requests else []
        assert {tuple(json.loads(line)["outputs"]) for line in lines} == ({("sum",)} if serve is both else set())


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
