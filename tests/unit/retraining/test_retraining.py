"""What decides about a retraining: digests, history, verdict, and the weights it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.emulators.gcs import FakeGcs

from servegraph.answers.metric import Metric
from servegraph.check_data.check import Seen, decide, require_warm_start, settings_digest
from servegraph.components import check_data, digest_data
from servegraph.data.digest import data_digest
from servegraph.errors import InputError, StorageError
from servegraph.evaluate.judge import Criteria, Measured, judge
from servegraph.metric_words import metric_name, metric_value, percent
from servegraph.retraining.history import History, Training
from servegraph_pipelines import flows
from servegraph_pipelines.bindings import tasks_of

SEEN = Seen("d1", "s1", is_live=True)


@pytest.mark.parametrize(
    ("last", "decision"),
    [
        (None, "train"),
        (Training("d1", "s1", deployed=True), "skip"),
        (Training("d1", "s1", deployed=False), "skip"),
        (Training("d0", "s1", deployed=True), "train"),
        (Training("d1", "s0", deployed=True), "train"),
    ],
)
def test_only_what_changed_is_trained_on(last, decision):
    assert decide(SEEN, last)[0] == decision


def test_a_version_that_is_gone_or_force_trains_again():
    last = Training("d1", "s1", deployed=True)
    assert decide(Seen("d1", "s1", is_live=False), last)[0] == "train"
    assert decide(SEEN, last, force=True)[0] == "train"


def test_the_digest_is_that_of_the_content(tmp_path):
    for folder, content in (("a", "1,2\n"), ("b", "1,2\n"), ("c", "1,3\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.csv").write_text(content)
    digests = [data_digest([str(tmp_path / folder), ""]) for folder in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert data_digest([str(tmp_path / "a"), str(tmp_path / "a")]) != digests[0]
    (tmp_path / "a/0.csv").touch()
    (tmp_path / "a/2.csv").touch()
    assert data_digest([str(tmp_path / "a"), ""]) == digests[0]  # of no records more
    assert data_digest(["census"]) == data_digest(["census"])
    with pytest.raises(StorageError):
        data_digest([str(tmp_path / "none*.csv")])
    assert settings_digest(["a", {"x": 1, "y": 2}]) == settings_digest(["a", {"y": 2, "x": 1}])


def test_another_trainer_under_the_same_name_is_something_new(tmp_path):
    (tmp_path / "own.py").write_text("def train(args): return 1\n")
    history = str(tmp_path / "history")

    def check():
        trainer = f"{tmp_path}/own.py:train"
        return check_data.python_func(model_name="m", history=history, data="census", trainer=trainer, live_version="1")

    first = check()
    assert first.decision == "train"
    model = tmp_path / "model.keras"
    model.write_bytes(b"weights")
    History(history, "m").write(Training(first.data_digest, first.settings_digest, deployed=True), model)
    assert check().decision == "skip"
    (tmp_path / "own.py").write_text("def train(args): return 2\n")
    other = check()
    assert (other.decision, other.data_digest) == ("train", first.data_digest)
    assert other.content_digest != first.content_digest


@pytest.mark.parametrize(
    "setting",
    [
        {"min_metric": "0.9"},
        {"max_metric_drop": 0.01},
        {"budget": "1MB"},
        {"gpu_graph": "float16"},
        {"min_agreement": 0.9},
        {"serving": {"min_replicas": 2}},
        {"traffic_percent": 50},
        {"allow_signature_change": True},
    ],
)
def test_what_decides_about_the_deploy_is_a_setting_and_no_other_training(tmp_path, setting):
    given = {"model_name": "m", "history": str(tmp_path), "data": "census", "live_version": "1"}
    first = check_data.python_func(**given)
    History(str(tmp_path), "m").write(Training(first.data_digest, first.settings_digest, deployed=False), None)
    assert check_data.python_func(**given).decision == "skip"
    changed = check_data.python_func(**given, **setting)
    assert (changed.decision, changed.reason) == ("train", "the settings have changed.")
    assert changed.content_digest == first.content_digest


def test_retrain_looks_at_all_that_its_later_steps_are_given():
    """All but the places, and the rate, which no step but the choice's own record takes."""
    flow = flows.read(Path(flows.__file__).parent / "retrain.yaml")
    (checked,) = (
        task for task in tasks_of(flow, {name: name for name in flow.parameters}) if task.name == "check-data"
    )
    places = {"target", "location", "project", "region", "staging", "namespace", "api_url"}
    assert set(flow.parameters) - set(checked.inputs.values()) == places | {"target_rate"}


def test_a_training_is_cached_by_content_only_where_it_is_a_function_of_it(tmp_path):
    """A cache of an engine takes what has the same key: `content_digest` is in that of the training."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.csv").write_text("1,2\n")

    def looked(place, trainer="servegraph.train.wide_and_deep:train"):
        return digest_data.python_func(data=str(tmp_path / place), trainer=trainer).content_digest

    def checked(**given):
        given = {"trainer": "", "data": "census", **given}
        return check_data.python_func(model_name="m", history=str(tmp_path / "history"), **given).content_digest

    assert looked("a") == looked("b") == looked("a", trainer="estimator")
    assert looked("a", trainer="own.py:train") != looked("a", trainer="own.py:train")  # what it reads is not known
    assert looked("none") != looked("none")  # the training says what is wrong
    (tmp_path / "b/1.csv").write_text("1,3\n")
    assert looked("a") != looked("b")
    assert checked() == checked()
    assert checked(seed=2) != checked()
    assert checked(force=True) != checked(force=True)
    assert checked(trainer="own.module:train") != checked(trainer="own.module:train")


def test_data_on_cloud_storage_is_not_read_for_its_digest(tmp_path, monkeypatch):
    (tmp_path / "1.csv").write_text("1,2\n")
    here = data_digest([str(tmp_path / "1.csv")])
    with FakeGcs() as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        gcs.put("b", "data/1.csv", b"1,2\n")
        assert data_digest(["gs://b/data"]) == data_digest(["gs://b/data/1.csv"]) == here
        assert not [call for call in gcs.calls if "/download/" in call.request.path]
        client = gcs.client()
        client.bucket("b").blob("joined").compose([client.bucket("b").blob("data/1.csv")] * 2)
        client.close()
        (tmp_path / "1.csv").write_text("1,2\n1,2\n")
        assert data_digest(["gs://b/joined"]) == data_digest([str(tmp_path / "1.csv")])  # which has no MD5 there
        assert [call for call in gcs.calls if "/download/" in call.request.path]


def test_a_history_on_this_machine(tmp_path):
    model = tmp_path / "model.keras"
    model.write_bytes(b"weights")
    history = History(str(tmp_path / "history"), "census")
    assert history.read() is None
    kept = history.write(Training("d" * 64, "s" * 64, deployed=True), model)
    assert history.read() == kept
    model.write_bytes(b"weights, saved a minute later")
    assert history.write(Training("d" * 64, "s" * 64, deployed=True), model).model != kept.model
    assert Path(kept.model).read_bytes() == b"weights"  # a run that starts from it may be under way
    kept = history.write(kept, model)
    refused = history.write(Training("e" * 64, "s" * 64, deployed=False), None)
    assert refused.model == kept.model  # of the version that is still live
    of_an_estimator = history.write(Training("f" * 64, "s" * 64, deployed=True), None)
    assert (of_an_estimator.model, history.read()) == ("", of_an_estimator)
    (tmp_path / "history/census.json").write_text("[")
    with pytest.raises(InputError) as caught:
        history.read()
    assert caught.value.code == "BAD_HISTORY"
    with pytest.raises(InputError):
        History("", "census")


def test_an_estimator_has_nothing_to_start_from():
    require_warm_start("estimator", warm_start=False)
    require_warm_start("servegraph.train.wide_and_deep:train", warm_start=True)
    with pytest.raises(InputError) as caught:
        require_warm_start("estimator:own.py:make", warm_start=True)
    assert caught.value.code == "NO_WARM_START"


def metric(value: float, *, higher: bool = True) -> Metric:
    return Metric("accuracy" if higher else "mean_absolute_error", value, higher, "classes")


NEW = Measured(metric(0.9), 1000, 2.0)


@pytest.mark.parametrize(
    ("live", "criteria", "word"),
    [
        (None, {}, ""),
        (Measured(metric(0.9), 1000, 2.0), {}, ""),
        (Measured(metric(0.91), 1000, 2.0), {}, "accuracy"),
        (Measured(metric(0.91), 1000, 2.0), {"max_metric_drop": 0.02}, ""),
        (Measured(metric(0.8), 400, 2.0), {"max_size_growth": 2.0}, "size"),
        (Measured(metric(0.8), 600, 2.0), {"max_size_growth": 2.0}, ""),
        (Measured(metric(0.8), 1000, 0.5), {"max_latency_growth": 3.0}, "latency"),
        (None, {"min_metric": "0.95"}, "accuracy"),
        (None, {"max_size": "900B"}, "at most"),
        (None, {"max_latency_ms": 1.0}, "at most"),
    ],
)
def test_the_verdict_names_what_is_lacking(live, criteria, word):
    found = judge(NEW, live, Criteria.of(**criteria))
    assert (found.verdict == "refused") == bool(word)
    assert word in " ".join(found.reasons)


def test_the_limit_on_latency_is_for_a_server_where_that_was_measured():
    limit = Criteria.of(max_latency_ms=1.0, max_latency_growth=1.5)
    assert judge(NEW, Measured(metric(0.9), 1000, 2.0), limit, "", 0.9).verdict == "blessed"
    slow = judge(NEW, Measured(metric(0.9), 1000, 1.0), limit, "", 1.1)
    assert (slow.latency_ms, len(slow.reasons)) == (1.1, 2)
    assert slow.figures()["measured_latency_ms"] == 1.1


def test_an_error_that_grows_is_a_loss():
    new, live = Measured(metric(1.1, higher=False), 1, 1.0), Measured(metric(1.0, higher=False), 1, 1.0)
    assert judge(new, live, Criteria.of(max_metric_drop=0.05)).verdict == "refused"
    assert judge(live, new, Criteria.of()).verdict == "blessed"
    new = Measured(metric(101_597.35512, higher=False), 1, 1.0)
    live = Measured(metric(11_890.0, higher=False), 1, 1.0)
    assert judge(new, live, Criteria.of(min_metric="100000", max_metric_drop=0.05)).reasons == (
        "The mean absolute error is 101597.3551; 100000 is asked for.",
        "The mean absolute error is 101597.3551, that of the live version 11890.0000: "
        "a growth of 754.5 % where 5 % is allowed.",
    )


def test_metrics_are_told_in_one_way():
    assert [metric_name(name) for name in ("mae", "mean_absolute_error", "log_loss")] == [
        *2 * ["mean absolute error"],
        "log loss",
    ]
    told = {0.88091: "0.8809", 101_597.35512: "101597.3551", 0.0000123456: "1.235e-05", 0.0: "0.0000"}
    assert {value: metric_value(value) for value in told} == told
    assert [percent(part) for part in (7.5, 0.0123, 0.00004)] == ["750.0 %", "1.2 %", "0.004 %"]


def test_a_live_version_that_cannot_be_asked_refuses_unless_allowed():
    assert judge(NEW, None, Criteria.of(), "it has no input x.").verdict == "refused"
    assert judge(NEW, None, Criteria.of(allow_incomparable=True), "it has no input x.").verdict == "blessed"


@pytest.mark.parametrize("bad", [{"min_metric": "good"}, {"max_metric_drop": -1.0}, {"max_size": "big"}])
def test_bad_criteria_are_refused(bad):
    with pytest.raises(InputError):
        Criteria.of(**bad)


def test_words_keep_their_weights_whatever_their_order(tmp_path):
    import keras
    import numpy as np

    from servegraph.train.warm_start import warm_start

    def build(words: list[str], units: int) -> keras.Model:
        word = keras.Input(shape=(), name="w", dtype="string")
        ids = keras.layers.StringLookup(vocabulary=words, name="ids-w")(word)
        rows = keras.layers.Embedding(len(words) + 1, 3, name="deep-w")(ids)
        hidden = keras.layers.Dense(units, name="hidden-0")(rows)
        return keras.Model({"w": word}, keras.layers.Dense(1, name="logits")(hidden))

    before, model = build(["a", "b", "c"], 4), build(["c", "d", "a"], 5)
    before.save(tmp_path / "before.keras")
    fresh = model.get_layer("deep-w").get_weights()[0]
    assert warm_start(model, tmp_path / "before.keras") == ["deep-w"]  # the others have another shape
    old, new = before.get_layer("deep-w").get_weights()[0], model.get_layer("deep-w").get_weights()[0]
    np.testing.assert_array_equal(new, [old[0], old[3], fresh[2], old[1]])
    (tmp_path / "no.keras").write_text("no")
    with pytest.raises(InputError):
        warm_start(model, tmp_path / "no.keras")


def test_a_history_on_cloud_storage(tmp_path, monkeypatch):
    with FakeGcs() as fake:
        fake.make_bucket("bucket")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        model = tmp_path / "trained/model.keras"
        model.parent.mkdir()
        model.write_bytes(b"weights")
        history = History("gs://bucket/history", "census")
        assert history.read() is None
        kept = history.write(Training("d" * 64, "s" * 64, deployed=True), model)
        assert kept.model.startswith("gs://bucket/history/census/")
        assert history.read() == kept
        assert history.write(Training("d" * 64, "s" * 64, deployed=True), model) == kept
        model.write_bytes(b"weights, saved a minute later")
        again = history.write(Training("d" * 64, "s" * 64, deployed=True), model)
        assert {uri: fake.content("bucket", uri.removeprefix("gs://bucket/")) for uri in (kept.model, again.model)} == {
            kept.model: b"weights",
            again.model: b"weights, saved a minute later",
        }
