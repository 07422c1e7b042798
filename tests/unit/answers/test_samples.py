import numpy as np
import pytest

from servegraph.answers import samples
from servegraph.answers.samples import InputSpec
from servegraph.errors import DataError

SPECS = {"x": InputSpec("float32", (None, 2)), "word": InputSpec("string", (None,))}


def test_generated_records_fit_every_dtype_and_shape():
    specs = {
        **SPECS,
        "n": InputSpec("int64", (None,)),
        "flag": InputSpec("bool", (None, 1)),
        "ragged": InputSpec("float16", (None, None)),
        "any": InputSpec("uint8", None),
    }
    made = samples.generate(specs, rows=3)
    assert made.generated
    assert made.inputs["x"].shape == (3, 2)
    assert made.inputs["ragged"].shape == (3, samples.FREE_DIMENSION)
    assert made.inputs["any"].dtype == np.uint8
    assert [len(batch["x"]) for batch in made.batches(2)] == [2, 1]


def test_a_fixed_shape_makes_one_request():
    made = samples.generate({"x": InputSpec("float32", ()), "y": InputSpec("int32", (5,))})
    assert not made.is_batched
    (request,) = made.batches(64)
    assert (request["x"].shape, request["y"].shape) == ((), (5,))


def test_bare_values_where_there_is_one_input(tmp_path):
    (tmp_path / "s.jsonl").write_text("[1, 2]\n\n[3, 4]\n")
    read = samples.read(str(tmp_path / "s.jsonl"), {"x": InputSpec("float32", (None, 2))})
    assert read.inputs["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"x": [1, 2]}, "'word'|no value"),
        ({"x": [1, "b"], "word": "a"}, "'x'.*not float32"),
        ({"x": [1, 2, 3], "word": "a"}, "shape"),
        ({"x": 1, "word": "a"}, "shape"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, record, says):
    import json

    (tmp_path / "s.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=says):
        samples.read(str(tmp_path / "s.jsonl"), SPECS)


def test_a_dtype_that_json_cannot_hold():
    with pytest.raises(DataError, match="complex64"):
        samples.from_records([{"x": 1}], {"x": InputSpec("complex64", (None,))}, "test")
