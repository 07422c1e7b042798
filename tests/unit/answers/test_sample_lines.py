"""Sample requests are read from JSON lines; what does not fit is named."""

import bz2
import gzip
import json
import lzma

import numpy as np
import pytest
import tensorflow as tf

from servegraph.answers import sample_lines
from servegraph.answers.samples import InputSpec
from servegraph.errors import DataError, StorageError

SPECS = {"x": InputSpec("float32", (None, 2)), "word": InputSpec("string", (None,))}
IDS = {"ids": InputSpec("int32", (None, None))}


@pytest.fixture
def read(tmp_path):
    def read(lines, specs=SPECS, **options):
        path = tmp_path / "s.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
        return sample_lines.read(str(path), specs, **options)

    return read


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


def test_a_dtype_that_json_cannot_hold(read):
    with pytest.raises(DataError, match="complex64"):
        read([{"x": 1}], {"x": InputSpec("complex64", (None,))})


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.gz", "s.jsonl.xz", "s.jsonl.bz2"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
def test_the_content_says_how_samples_are_compressed(pack, name, tmp_path):
    """A browser inflates what it fetches, and keeps the name."""
    (tmp_path / name).write_bytes(pack(b'{"ids": [1]}\n'))
    assert sample_lines.read(str(tmp_path / name), IDS).rows == 1


def test_samples_in_bzip2_and_damaged_ones(tmp_path):
    whole, cut = tmp_path / "s.jsonl.bz2", tmp_path / "s.jsonl.gz"
    whole.write_bytes(bz2.compress(b'{"ids": [1]}\n'))
    cut.write_bytes(gzip.compress(b'{"ids": [1]}\n')[:-9])
    assert sample_lines.read(str(whole), IDS).rows == 1
    with pytest.raises(StorageError) as caught:
        sample_lines.read(str(cut), IDS)
    assert caught.value.code == "DAMAGED"


def default(value, dtype="float32"):
    return tf.make_tensor_proto(np.array(value, dtype)).SerializeToString()


def test_what_a_line_leaves_out_is_asked_with_the_default_of_the_signature(read):
    specs = {"x": InputSpec("float32", (None, 2)), "scale": InputSpec("float32", (), default(3))}
    lines = [{"x": [1, 2]}, {"x": [3, 4], "scale": 5}, {"inputs": {"x": [[5, 6], [7, 8]]}}, {"x": [[9, 9]]}]
    found = read(lines, specs)
    assert [(r["x"].tolist(), r["scale"].item()) for r in found.batches(8)] == [
        ([[1, 2]], 3),
        ([[3, 4]], 5),
        ([[5, 6], [7, 8]], 3),
        ([[9, 9]], 3),
    ]
    with pytest.raises(DataError, match=r"no value for the inputs \['x'\]"):
        read([{"scale": 1}], specs)


def test_a_default_of_one_row_stands_for_each_row_and_another_is_asked_as_it_stands(read):
    rows = {**IDS, "of": InputSpec("float32", (None,), default([2]))}
    found = read([{"ids": [1]}, {"ids": [2]}, {"ids": [3], "of": 4}, {"inputs": {"ids": [[5], [6]]}}], rows)
    assert (found.rows, found.is_batched) == (5, True)
    assert found.inputs["of"].tolist() == [2, 2, 4, 2, 2]
    whole = {**IDS, "stops": InputSpec("float32", (None,), default([7, 8, 9]))}
    found = read([{"ids": [1]}, {"ids": [2]}], whole)
    assert [(r["ids"].tolist(), r["stops"].tolist()) for r in found.batches(8)] == [
        ([[1]], [7, 8, 9]),
        ([[2]], [7, 8, 9]),
    ]


def test_a_default_that_does_not_fit_its_input_is_said(read):
    with pytest.raises(DataError, match="default of the input 'scale' has the shape"):
        read([{"ids": [1]}], {**IDS, "scale": InputSpec("float32", (), default([1, 2]))})
