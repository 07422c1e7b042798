"""Inputs of which the SignatureDef has a default: a request may leave them out."""

from pathlib import Path

import numpy as np
import pytest

from servegraph.errors import ModelError
from servegraph.serve.decode import decode
from servegraph.serve.model import load_model
from servegraph.serve.saved_model_predictor import SavedModelPredictor

tf = pytest.importorskip("tensorflow")
parse_saved_model = pytest.importorskip("tensorflow.python.saved_model.loader_impl").parse_saved_model


class Scaled(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x"), tf.TensorSpec([], name="scale")])
    def serve(self, x, scale=tf.constant(3.0)):  # noqa: B008 - TensorFlow stores a default that is a tensor
        return {"y": x * scale}


def test_a_default_stands_for_what_a_request_leaves_out(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("default", "sizes", "why"),
    [("text", (), "it is string, the input float32"), (2.0, (2**40,), "is not held"), (2.0, (2,), "wants []")],
)
def test_one_that_is_no_value_of_its_input_keeps_the_model_from_traffic(
    default: object, sizes: tuple[int, ...], why: str, tmp_path: Path
) -> None:
    scaled = Scaled()
    tf.saved_model.save(scaled, str(tmp_path), signatures=scaled.serve)
    saved_model = parse_saved_model(str(tmp_path))
    stored = saved_model.meta_graphs[0].signature_def["serving_default"].defaults["scale"]
    stored.CopyFrom(tf.make_tensor_proto(default))
    for size in sizes:
        stored.tensor_shape.dim.add().size = size
    (tmp_path / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    with pytest.raises(ModelError) as refused:
        load_model(tmp_path)
    assert refused.value.code == "BAD_DEFAULT"
    assert why in refused.value.message
