"""Golden requests of a large output: the server compares the values that were recorded, at their places."""

import gzip
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from servegraph.answers import golden
from servegraph.answers.samples import Samples
from servegraph.errors import ModelError
from servegraph.savedmodel.golden_file import LARGEST_BYTES
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.serve.model import load_model

tf = pytest.importorskip("tensorflow")
SIDE = 80  # an answer has the square of it, more than are recorded as they are


@pytest.fixture
def model(tmp_path: Path) -> Path:
    @tf.function(input_signature=[tf.TensorSpec([None, SIDE], tf.float32, "x")])
    def serve(x):
        return {"squares": x[:, :, None] * x[:, None, :]}

    path = tmp_path / "squares" / "1"
    tf.saved_model.save(tf.Module(), str(path), signatures=serve)
    return path


def record(model: Path, answer: np.ndarray, x: np.ndarray) -> None:
    samples = Samples({"x": x}, 1, generated=False)
    assert golden.write(model, "serving_default", samples, [{"squares": answer}], 10**6).lines == 1
    assert "every" in json.loads(gzip.decompress((model / GOLDEN_FILE).read_bytes()))["outputs"]["squares"]


def test_what_was_recorded_of_a_large_answer_is_compared(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = np.random.default_rng(0).normal(size=[1, SIDE]).astype(np.float32)
    right = x[:, :, None] * x[:, None, :]
    record(model, right, x)
    with caplog.at_level(logging.WARNING):
        load_model(model)
    assert not [line for line in caplog.messages if "golden" in line]
    for wrong in (right + 1, right.reshape(1, SIDE // 2, SIDE * 2)):
        record(model, wrong, x)
        with pytest.raises(ModelError) as refused:
            load_model(model)
        assert refused.value.code == "GOLDEN_MISMATCH"


def test_an_answer_without_a_value_is_as_recorded(tmp_path: Path) -> None:
    """Of no boxes JSON does not say that each would have four sides."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serve(x):
        return {"boxes": tf.boolean_mask(tf.stack([x] * 4, axis=1), x > 1), "pairs": tf.zeros([2, 0, 3])}

    path = tmp_path / "boxes" / "1"
    tf.saved_model.save(tf.Module(), str(path), signatures=serve)
    samples = Samples({"x": np.zeros(1, np.float32)}, 1, generated=False)
    none, one = np.zeros([0, 4], np.float32), np.zeros([1, 4], np.float32)
    golden.write(path, "serving_default", samples, [{"boxes": none, "pairs": np.zeros([2, 0, 3], np.float32)}], 10**6)
    load_model(path)
    for wrong in ({"boxes": one}, {"pairs": np.zeros([1, 0, 3], np.float32)}):
        golden.write(path, "serving_default", samples, [wrong], 10**6)
        with pytest.raises(ModelError, match="answered otherwise than recorded"):
            load_model(path)


def test_too_few_values_are_no_golden_request(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = np.ones([1, SIDE], np.float32)
    record(model, x[:, :, None] * x[:, None, :], x)
    line = json.loads(gzip.decompress((model / GOLDEN_FILE).read_bytes()))
    line["outputs"]["squares"]["values"].pop()
    (model / GOLDEN_FILE).write_bytes(gzip.compress(json.dumps(line).encode()))
    load_model(model)
    assert any("is not a golden request" in message for message in caplog.messages)


def test_what_fits_the_model_no_more_is_left(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = np.ones([1, SIDE], np.float32)
    record(model, x[:, :, None] * x[:, None, :], x)
    content = gzip.decompress((model / GOLDEN_FILE).read_bytes())
    for name in (b"squares", b"serving_default", b'"x"'):
        (model / GOLDEN_FILE).write_bytes(content.replace(name, b'"gone"' if name[:1] == b'"' else b"gone"))
        caplog.clear()
        load_model(model)
        assert any("does not fit the model" in message for message in caplog.messages), name


def test_a_file_that_inflates_without_end_is_not_read_whole(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model / GOLDEN_FILE).parent.mkdir()
    (model / GOLDEN_FILE).write_bytes(gzip.compress(bytes(LARGEST_BYTES + 1), 1))
    load_model(model)
    assert any("inflates to more than" in message for message in caplog.messages)
