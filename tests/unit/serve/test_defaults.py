"""Inputs of which the SignatureDef has a default: a request may leave them out."""

from pathlib import Path

import numpy as np
import pytest

from servegraph.serve.decode import decode
from servegraph.serve.model import load_model
from servegraph.serve.saved_model_predictor import SavedModelPredictor

tf = pytest.importorskip("tensorflow")


def test_a_default_stands_for_what_a_request_leaves_out(tmp_path: Path) -> None:
    class Scaled(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x"), tf.TensorSpec([], name="scale")])
        def serve(self, x, scale=tf.constant(3.0)):  # noqa: B008 - TensorFlow stores a default that is a tensor
            return {"y": x * scale}

    scaled = Scaled()
    path = tmp_path / "scaled" / "1"
    tf.saved_model.save(scaled, str(path), signatures=scaled.serve)
    model = load_model(path)
    assert [*model.signatures["serving_default"].defaults] == ["scale"]
    assert not model.shareable

    def answer(body: bytes) -> list[list[float]]:
        request = decode(body, model.graph)
        return np.asarray(model.run(request.signature_name, request.inputs)["y"]).tolist()

    assert answer(b'{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}') == [[3, 6], [9, 12]]
    assert answer(b'{"inputs": {"x": [[1, 2]]}}') == [[3, 6]]
    assert answer(b'{"inputs": {"x": [[1, 2]], "scale": 5}}') == [[5, 10]]
    predictor = SavedModelPredictor()
    predictor.load(str(path))
    assert predictor.predict(predictor.preprocess({"instances": [{"x": [1, 2]}]}))["y"].tolist() == [[3, 6]]
