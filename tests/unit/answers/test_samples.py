import json

import ml_dtypes
import numpy as np
import pytest

from servegraph.answers import samples
from servegraph.answers.samples import InputSpec, Samples
from servegraph.errors import DataError
from servegraph.savedmodel.dtypes import DTYPES

SPECS = {"x": InputSpec("float32", (None, 2)), "word": InputSpec("string", (None,))}
IDS = {"ids": InputSpec("int32", (None, None))}


@pytest.fixture
def read(tmp_path):
    def read(lines, specs=SPECS, **options):
        path = tmp_path / "s.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
        return samples.read(str(path), specs, **options)

    return read


@pytest.mark.parametrize("care", ["little", "some", "most"])
def test_generated_records_fit_every_dtype_and_shape(care):
    holdable = [row.name for row in DTYPES if row.name[0] != "q" and row.name not in ("resource", "variant")]
    for shape in [(None,), (None, 3), (None, None), (), (2, 3), (0,), (None, 0)]:
        made = samples.generate({name: InputSpec(name, shape) for name in holdable}, rows=3, care=care)
        assert made.generated
        assert made.is_batched == (shape[:1] == (None,))
        for name, values in made.inputs.items():
            assert values.dtype.name in (name, "object")
            assert len(values.shape) == len(shape)
            assert not made.is_batched or len(values) == 3


def test_generated_numbers_are_short():
    made = samples.generate({"x": InputSpec("float32", (None, 50)), "n": InputSpec("int64", (None,))})
    assert {len(str(value).partition(".")[2]) <= 2 for value in made.inputs["x"].ravel()} == {True}
    assert set(made.inputs["n"].tolist()) <= {0, 1, 2}


def test_two_records_of_a_large_input_are_enough():
    assert samples.generate({"image": InputSpec("float32", (None, 224, 224, 3))}).rows == 2
    assert samples.generate({"image": InputSpec("float32", (None, 28, 28, 1))}).rows == 16


def test_an_image_of_any_size_is_not_tiny():
    made = samples.generate({"image": InputSpec("uint8", (None, None, None, 3))})
    assert made.inputs["image"].shape[1:] == (64, 64, 3)


def test_the_most_careful_draw_is_ones_and_the_id_0():
    specs = {**SPECS, "id": InputSpec("int32", (None,)), "b": InputSpec("bfloat16", (None,))}
    made = samples.generate(specs, care="most")
    assert {name: set(values.ravel().tolist()) for name, values in made.inputs.items()} == {
        "x": {1.0},
        "word": {b"1"},
        "id": {0},
        "b": {1.0},
    }
    assert made.inputs["b"].dtype == ml_dtypes.bfloat16


def test_the_most_careful_draw_fits_with_any_shape_where_none_is_known():
    made = samples.generate({"x": InputSpec("float32", None)}, care="most")
    assert made.inputs["x"].shape == ()
    assert not made.is_batched


@pytest.mark.parametrize("dtype", ["resource", "variant", "qint8", "unknown(77)", "float32_ref"])
def test_a_dtype_that_no_request_holds(dtype):
    with pytest.raises(DataError, match=r"CANNOT_MAKE_UP.*'x'"):
        samples.generate({"x": InputSpec(dtype, (None,))})


def test_a_signature_without_inputs_is_asked_once():
    made = samples.generate({})
    assert (made.rows, list(made.batches(4))) == (1, [{}])


def test_batches_are_slices():
    made = samples.generate(SPECS, rows=3)
    assert [len(batch["x"]) for batch in made.batches(2)] == [2, 1]


def test_a_fixed_shape_makes_one_request():
    made = samples.generate({"x": InputSpec("float32", ()), "y": InputSpec("int32", (5,))})
    assert not made.is_batched
    (request,) = made.batches(64)
    assert (request["x"].shape, request["y"].shape) == ((), (5,))


def test_bare_values_where_there_is_one_input(read):
    found = read(["[1, 2]", "", "[3, 4]"], {"x": InputSpec("float32", (None, 2))})
    assert found.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert read([{"b64": "/w=="}], {"x": InputSpec("string", (None,))}).inputs["x"].tolist() == [b"\xff"]


def test_bytes_stand_as_base64_and_text_as_itself(read):
    found = read([{"x": [1, 2], "word": {"b64": "/wA="}}, {"x": [3, 4], "word": "é"}])
    assert found.inputs["word"].tolist() == [b"\xff\x00", "é".encode()]


def test_a_golden_file_is_a_sample_file(read):
    whole = {"signature_name": "serving_default", "inputs": {"x": [[1, 2], [3, 4]], "word": ["a", "b"]}, "outputs": {}}
    other = {"signature_name": "other", "inputs": {"z": [1]}}
    found = read([{"x": [0, 0], "word": "first"}, whole, other], signature="serving_default")
    assert found.rows == 3
    assert found.inputs["x"].tolist() == [[0, 0], [1, 2], [3, 4]]
    with pytest.raises(DataError, match="no value for the inputs"):
        read([other])


def test_an_input_named_inputs_is_no_whole_request(read):
    specs = {"inputs": InputSpec("string", (None,))}
    lines = [{"inputs": "a"}, {"inputs": {"b64": "/w=="}}, {"inputs": {"inputs": ["b"]}}]
    assert read(lines, specs).inputs["inputs"].tolist() == [b"a", b"\xff", b"b"]


def test_records_of_different_lengths_stay_in_order(read):
    found = read([{"ids": ids} for ids in ([1, 2], [3, 4], [5], [6, 7])], IDS)
    assert [batch["ids"].tolist() for batch in found.batches(8)] == [[[1, 2], [3, 4]], [[5]], [[6, 7]]]
    assert found.rows == 4


def test_a_line_is_one_request_where_there_is_no_batch(read):
    specs = {"x": InputSpec("float32", ()), "y": InputSpec("int32", (2,))}
    found = read([{"x": 1.5, "y": [1, 2]}, {"inputs": {"x": 2.5, "y": [3, 4]}}], specs)
    assert [(r["x"].item(), r["y"].tolist()) for r in found.batches(8)] == [(1.5, [1, 2]), (2.5, [3, 4])]
    assert (found.rows, found.is_batched) == (2, False)


def test_the_batch_of_one_need_not_be_written(read):
    found = read([{"x": [1, 2]}, {"x": [[3, 4]]}], {"x": InputSpec("float32", (1, 2))})
    assert [request["x"].tolist() for request in found.batches(8)] == [[[1, 2]], [[3, 4]]]


def test_labels_come_with_their_records(read):
    whole = {"inputs": {"ids": [[2], [3]]}, "y": ["b", "c"]}
    found = read([{"ids": [1], "y": "a"}, whole, {"ids": [4], "y": "d"}], IDS, label="y")
    assert found.labels == ("a", "b", "c", "d")
    assert found.rows == 4
    assert read([{"ids": [1], "y": "a"}], IDS).labels == ()
    assert read([{"ids": [i], "y": i} for i in range(9)], IDS, label="y", limit=5).labels == tuple(range(5))


@pytest.mark.parametrize(
    "line", [{"ids": [1]}, {"ids": [1], "y": None}, {"inputs": {"ids": [[1], [2]]}, "y": ["a"]}, [1]]
)
def test_a_missing_label_is_named(read, line):
    with pytest.raises(DataError, match=r"line 2.*label"):
        read([{"ids": [1], "y": 1}, line], IDS, label="y")


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"x": [1, 2]}, "'word'|no value"),
        ({"x": [1, "b"], "word": "a"}, "'x'.*not float32"),
        ({"x": [1, 2, 3], "word": "a"}, "shape"),
        ({"x": 1, "word": "a"}, "shape"),
        ({"x": [1, 2], "word": 5}, "'word'.*not string"),
        ({"inputs": {"x": [1, 2], "word": "a"}}, "'x' of line 1.*shape"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_does_not_fit_is_named(read, record, says):
    with pytest.raises(DataError, match=says):
        read([record])


def test_no_records(read):
    with pytest.raises(DataError, match="EMPTY_SAMPLES"):
        read([""])


def test_a_dtype_that_json_cannot_hold():
    with pytest.raises(DataError, match="complex64"):
        samples.from_records([{"x": 1}], {"x": InputSpec("complex64", (None,))}, "test")


def test_models_are_asked_small_requests_first():
    lengths = {
        rows: [len(request["x"]) for request in Samples({"x": np.arange(rows)}, rows, True).requests()]
        for rows in (1, 3, 16, 17, 150)
    }
    assert lengths == {1: [1], 3: [1, 2], 16: [1, 2, 13], 17: [1, 2, 13, 1], 150: [1, 2, 13, 64, 64, 6]}


def test_a_request_has_records_of_one_length():
    parts = [{"x": np.zeros((rows, length))} for rows, length in ((2, 1), (1, 2), (20, 3))]
    asked = Samples(parts[0], 23, False, more=tuple(parts[1:]))
    assert [request["x"].shape for request in asked.requests()] == [(1, 1), (1, 1), (1, 2), (13, 3), (7, 3)]


def test_dimensions_that_a_shape_leaves_open_can_be_of_one():
    specs = {"words": InputSpec("string", (None, None)), "image": InputSpec("float32", (None, None, None, 3))}
    made = samples.generate(specs, care="most", free=1)
    assert {name: values.shape[1:] for name, values in made.inputs.items()} == {"words": (1,), "image": (1, 1, 3)}


def test_requests_of_one_size_hold_whole_ones_and_their_labels():
    parts = [{"x": np.arange(5)}, {"x": np.arange(5, 6)}, {"x": np.arange(6, 10)}]
    asked = Samples(parts[0], 10, False, more=tuple(parts[1:]), labels=tuple("abcdefghij"))
    by_two = asked.in_requests_of(2)
    assert [request["x"].tolist() for request in by_two.requests()] == [[0, 1], [2, 3], [6, 7], [8, 9]]
    assert (by_two.labels, by_two.is_batched, by_two.rows) == (tuple("abcdghij"), False, 4)
    assert asked.in_requests_of(6) is None
    made = Samples({"x": np.arange(3)}, 3, True).in_requests_of(5)
    assert [request["x"].tolist() for request in made.requests()] == [[0, 1, 2, 0, 1]]
