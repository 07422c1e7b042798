"""Samples that fit no signature: the error is about the one that they were meant for."""

import json
from pathlib import Path

import pytest
from tests.tiny_models import SCHEMA_VERSION, Tensors, Y, saved_model

from servegraph import storage
from servegraph.answers.original import ask_original
from servegraph.errors import DataError
from servegraph.savedmodel.graph_reader import read_saved_model

SIGNATURES: dict[str, Tensors] = {
    "alpha": {"z": ("float32", [None, 2]), "q": ("float32", [None])},
    "serving_default": {"x": ("float32", [None, 4])},
    "words": {"word": ("string", [None])},
}


def refused(tmp_path: Path, *lines: object) -> DataError:
    """What is said of samples for a model whose main signature is not the first that it has."""
    graphs = [saved_model(inputs, Y, name, ("serve", name)) for name, inputs in SIGNATURES.items()]
    content = SCHEMA_VERSION + b"".join(graph.removeprefix(SCHEMA_VERSION) for graph in graphs)
    (tmp_path / "saved_model.pb").write_bytes(content)
    graph = read_saved_model(storage.open_dir(tmp_path))
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    with pytest.raises(DataError) as caught:
        ask_original(tmp_path, graph, [], str(samples))
    assert caught.value.code == "BAD_SAMPLES"
    return caught.value


@pytest.mark.parametrize(
    ("line", "signature", "said"),
    [
        ({"x": [1, 2, 3]}, "serving_default", "the shape [1, 3]"),
        ({"x": [1, 2, 3, "a"]}, "serving_default", "no number"),
        ({"unknown": 1}, "serving_default", "['x']"),
        ([1, 2, 3], "serving_default", "the shape [1, 3]"),
        ({"word": 5}, "words", "no text"),
        ({"q": 5}, "alpha", "['z']"),
        ({"inputs": {"word": [5]}, "signature_name": "words"}, "words", "no text"),
    ],
)
def test_the_signature_that_they_are_closest_to_is_named(
    tmp_path: Path, line: object, signature: str, said: str
) -> None:
    error = refused(tmp_path, line)
    assert f"the signature {signature!r}" in error.message
    assert said in error.message
    others = SIGNATURES.keys() - {signature}
    assert all(f"{other!r} takes" in error.fix for other in others)


def test_what_is_no_json_is_no_matter_of_a_signature(tmp_path: Path) -> None:
    error = refused(tmp_path, "{")
    assert "is not JSON" in error.message
    assert "signature" not in str(error)
