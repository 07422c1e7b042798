"""Answers as TF Serving's REST API documents them."""

import json

import ml_dtypes
import numpy as np
import pytest

from servegraph.errors import Refusal
from servegraph.serve.encode import encode


def strings(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


FLOATS = np.array([[0.2, 0.8], [1.0, 0.0]], np.float32)


def test_a_lone_output_goes_without_its_name():
    assert encode({"y": FLOATS}, "row") == b'{"predictions":[[0.2,0.8],[1.0,0.0]]}'
    assert encode({"y": FLOATS}, "column") == b'{"outputs":[[0.2,0.8],[1.0,0.0]]}'


def test_several_outputs_by_row_and_by_column():
    outputs = {"p": FLOATS, "c": strings(b"yes", "nö".encode()), "n": np.array([1, 2], np.int64)}
    assert json.loads(encode(outputs, "row")) == {
        "predictions": [{"c": "yes", "n": 1, "p": [0.2, 0.8]}, {"c": "nö", "n": 2, "p": [1.0, 0.0]}]
    }
    assert json.loads(encode(outputs, "column")) == {
        "outputs": {"c": ["yes", "nö"], "n": [1, 2], "p": [[0.2, 0.8], [1.0, 0.0]]}
    }


def test_bytes_are_sent_as_base64_by_the_name_of_the_output():
    assert json.loads(encode({"image_bytes": strings(b"\xff\x00")}, "row")) == {"predictions": [{"b64": "/wA="}]}
    with pytest.raises(Refusal, match="not UTF-8 text") as caught:
        encode({"image": strings(b"\xff\x00")}, "row")
    assert caught.value.code == "INTERNAL"
    assert "_bytes" in caught.value.fix


@pytest.mark.parametrize("form", ["row", "column"])
@pytest.mark.parametrize("several", [False, True])
def test_nan_and_infinity_are_the_bare_tokens_of_tf_serving(form, several):
    outputs = {"y": np.array([0.2, np.nan, np.inf, -np.inf], np.float32)}
    if several:
        outputs["z"] = np.array([1, 2, 3, 4])
    text = encode(outputs, form)
    assert b"0.2," in text or b"0.2}" in text  # and not 0.20000000298023224
    assert b"NaN" in text and b" Infinity" in text and b"-Infinity" in text


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (np.float32(0.1), 0.1),
        (np.array(7, np.int32), 7),
        (np.array(True), True),
        (np.array([1.5], np.float16), [1.5]),
        (np.array([1.5], ml_dtypes.bfloat16), [1.5]),
        (np.array([2**64 - 1], np.uint64), [2**64 - 1]),
        (np.zeros((0, 3), np.float32), []),
        (np.array([[1, 2], [3, 4]]).T, [[1, 3], [2, 4]]),
        (np.array(b"a", dtype=object), "a"),
        (np.array([[b"a"], [b"b"]], dtype=object), [["a"], ["b"]]),
    ],
)
def test_shapes_and_types(array, value):
    assert json.loads(encode({"y": np.asarray(array)}, "column")) == {"outputs": value}


def test_rows_need_a_common_batch():
    with pytest.raises(Refusal, match="no common batch size"):
        encode({"y": np.array(1.0)}, "row")
    with pytest.raises(Refusal, match="no common batch size"):
        encode({"y": np.zeros(2), "z": np.zeros(3)}, "row")


def test_what_json_cannot_carry():
    with pytest.raises(Refusal, match="complex64, which JSON cannot carry") as caught:
        encode({"y": np.zeros(1, np.complex64)}, "column")
    assert caught.value.code == "UNIMPLEMENTED"
    with pytest.raises(Refusal, match="no outputs"):
        encode({}, "row")
