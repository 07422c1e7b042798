"""A SavedModel measured through its signature against the one now live, both real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.emulators.gcs import FakeGcs

from servegraph.errors import DataError, InputError, ModelError
from servegraph.evaluate.evaluate import evaluate
from servegraph.evaluate.judge import Criteria
from servegraph.storage.fetch import fetch_file

tf = pytest.importorskip("tensorflow")


def write(path: Path, threshold: float, name: str = "x") -> str:
    """A model that says `yes` above a threshold."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name)])
    def serve(x):
        return {"classes": tf.where(x > threshold, "yes", "no")}

    tf.saved_model.save(tf.Module(), str(path), signatures={"serving_default": serve})
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write(folder / "good", 5.0)
    write(folder / "bad", 8.0)
    write(folder / "other", 5.0, name="y")
    rows = [{"x": float(i), "kind": "yes" if i > 5 else "no"} for i in range(10)]
    (folder / "samples").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def judged(folder: Path, model: str, live: str, **criteria: object):
    return evaluate(str(folder / model), live, str(folder / "samples"), "kind", Criteria.of(**criteria))


def test_a_worse_model_is_refused_and_a_better_one_blessed(folder):
    refused = judged(folder, "bad", str(folder / "good"))
    assert refused.verdict == "refused"
    assert (refused.candidate.metric.value, refused.live.metric.value) == (0.7, 1.0)
    assert "accuracy" in refused.reasons[0]
    assert refused.candidate.latency_ms > 0
    assert judged(folder, "good", str(folder / "bad")).verdict == "blessed"
    assert judged(folder, "bad", "", min_metric="0.9").verdict == "refused"


def test_a_live_model_with_other_inputs_cannot_be_compared(folder):
    found = judged(folder, "good", str(folder / "other"))
    assert found.verdict == "refused"
    assert found.live is None
    assert "cannot be compared" in found.reasons[0]
    assert judged(folder, "good", str(folder / "other"), allow_incomparable=True).verdict == "blessed"


def test_a_model_of_one_record_is_asked_one_after_the_other(folder, tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serve(x):
        return {"classes": tf.where(tf.ensure_shape(x, [1]) > 5.0, "yes", "no")}

    tf.saved_model.save(tf.Module(), str(tmp_path / "one"), signatures={"serving_default": serve})
    found = judged(folder, str(tmp_path / "one"), str(folder / "good"))
    assert (found.verdict, found.candidate.metric.value, found.live.metric.value) == ("blessed", 1.0, 1.0)


def test_a_noted_label_is_a_key_as_it_stands(folder, tmp_path):
    rows = [{"x": float(i), "kind=x": "yes" if i > 5 else "no"} for i in range(10)]
    (tmp_path / "samples").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = evaluate(str(folder / "good"), "", str(tmp_path / "samples"), "", Criteria(), noted_label="kind=x")
    assert found.candidate.metric.value == 1.0


def test_what_cannot_be_measured_is_an_error(folder, tmp_path):
    with pytest.raises(InputError) as caught:
        evaluate(str(folder / "good"), "", str(folder / "samples"), "", Criteria())
    assert caught.value.code == "NO_LABEL"
    with pytest.raises(DataError):
        evaluate(str(folder / "other"), "", str(folder / "samples"), "kind", Criteria())
    with pytest.raises(ModelError):
        evaluate(str(tmp_path), "", str(folder / "samples"), "kind", Criteria())


def test_the_live_model_may_be_on_cloud_storage(folder, tmp_path, monkeypatch):
    with FakeGcs() as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        for file in (folder / "good").rglob("*"):
            if file.is_file():
                fake.put("bucket", f"live/{file.relative_to(folder / 'good')}", file.read_bytes())
        assert judged(folder, "bad", "gs://bucket/live").live.metric.value == 1.0
        copied = fetch_file("gs://bucket/live/saved_model.pb", tmp_path)
        assert copied.read_bytes() == (folder / "good/saved_model.pb").read_bytes()
