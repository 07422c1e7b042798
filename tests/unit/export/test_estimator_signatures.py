"""Which signatures of an Estimator's own export clients get, and under which names; no TensorFlow is needed for it."""

from pathlib import Path

import pytest
from tests.bad_models.build import encode_bytes, entry, graph, node, placeholder, signature, tensor_info, write

from servegraph.export_serving_graph import estimator_source

X = {"x": tensor_info("x:0")}
PREDICT = b"tensorflow/serving/predict"


def method(name: bytes, output: str) -> bytes:
    its = signature(X, {output: tensor_info("y:0")})
    return its.replace(encode_bytes(3, PREDICT), encode_bytes(3, b"tensorflow/serving/" + name))


def exported(path: Path, signatures: dict[str, bytes]) -> Path:
    body = encode_bytes(2, graph([placeholder(), node("y", "Identity", ("x",))]))
    entries = b"".join(encode_bytes(5, entry(name, content)) for name, content in signatures.items())
    write(path, encode_bytes(2, encode_bytes(1, encode_bytes(4, b"serve")) + body + entries))
    return path


CLASSIFY, REGRESS, ALL, OWN = (
    method(b"classify", "scores"),
    method(b"regress", "outputs"),
    *(method(b"predict", name) for name in ("logits", "probabilities")),
)


@pytest.mark.parametrize(
    ("signatures", "chosen"),
    [
        ({"predict": ALL}, {"serving_default": "predict"}),
        (
            {"serving_default": CLASSIFY, "classification": CLASSIFY, "predict": ALL, "csv:predict": ALL},
            {"serving_default": "predict", "classification": "classification", "csv": "csv:predict"},
        ),
        (  # what the author of an Estimator made the default, and what else predicts, is not taken for TensorFlow's
            {"serving_default": OWN, "predict": ALL, "embed": ALL, "csv:serving_default": OWN, "csv:embed": ALL},
            {"serving_default": "serving_default", "predict": "predict", "embed": "embed"}
            | {"csv": "csv:serving_default", "csv:embed": "csv:embed"},
        ),
        (  # of one output TensorFlow makes both
            {"serving_default": OWN, "predict": OWN, "csv:serving_default": OWN, "csv:predict": OWN},
            {"serving_default": "serving_default", "csv": "csv:serving_default"},
        ),
        (  # several heads
            {"serving_default": CLASSIFY, "old": CLASSIFY, "old/classification": CLASSIFY, "old/predict": ALL}
            | {"price/regression": REGRESS, "predict": ALL},
            {"serving_default": "predict", "old/classification": "old/classification"}
            | {"price/regression": "price/regression"},
        ),
        ({"a": CLASSIFY}, {"a": "a"}),
    ],
)
def test_signatures(signatures: dict[str, bytes], chosen: dict[str, str], tmp_path: Path) -> None:
    assert estimator_source.signatures(exported(tmp_path / "model", signatures)) == chosen
