import json

import ml_dtypes
import numpy as np
import pytest

from servegraph.answers.dtypes import numpy_type
from servegraph.answers.json_values import from_json, is_holdable, to_json
from servegraph.savedmodel.dtypes import DTYPES

EXTREMES = {
    "bool": [True, False],
    "int64": [-(2**63), 2**63 - 1, 2**53 + 1],
    "uint64": [0, 2**64 - 1],
    "int8": [-128, 127],
    "uint8": [0, 255],
    "int4": [-8, 7],
    "float64": [0.1, 5e-324, 1.7976931348623157e308],
}


def every_value(dtype):
    """All finite bit patterns of a 16-bit type, random ones of float32."""
    if dtype == "float32":
        bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
        return np.append(bits, np.float32([0.1, 1e-45, 3.4028235e38, -0.0]))
    return np.arange(2**16, dtype=np.uint16).view(numpy_type(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_finite_float_comes_back_with_the_same_bits(dtype):
    values = every_value(dtype)
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = values[np.isfinite(values)]
    values = values[len(values) % 2 :].reshape(-1, 2)
    back = from_json(json.loads(json.dumps(to_json(values))), values.dtype)
    assert (back.dtype, back.shape) == (values.dtype, values.shape)
    assert back.tobytes() == values.tobytes()


@pytest.mark.parametrize(("dtype", "values"), EXTREMES.items())
def test_the_ends_of_a_range_come_back(dtype, values):
    array = np.array(values, dtype=numpy_type(dtype))
    back = from_json(json.loads(json.dumps(to_json(array))), array.dtype)
    assert back.dtype == array.dtype
    assert back.tolist() == values


def test_text_comes_back_as_bytes():
    texts = np.array([[b"a", "é".encode()], [b"\xff\x00", b""]], dtype=object)
    back = from_json(json.loads(json.dumps(to_json(texts))), texts.dtype)
    assert back.tolist() == texts.tolist()
    assert from_json([], texts.dtype).shape == (0,)
    assert from_json("é", texts.dtype).item() == "é".encode()


@pytest.mark.parametrize(
    ("dtype", "values", "says"),
    [
        ("int32", [1.5], "1.5"),
        ("int32", [2**31], "2147483648"),
        ("uint8", [-1], "-1"),
        ("uint64", [-1], "-1"),
        ("int64", [2**63], "9223372036854775808"),
        ("int4", [8], "8"),
        ("float16", [1e5], "100000.0"),
        ("float32", ["1"], "no number"),
        ("float32", [None], "no number"),
        ("int32", [[1], [2, 3]], "inhomogeneous"),
        ("bool", [2], "2"),
        ("string", ["a", 1], "no text"),
        ("string", [["a"], ["b", "c"]], "lengths"),
        ("string", [{"b64": "?"}], "base64"),
        ("complex64", [1], "complex"),
    ],
)
def test_what_a_type_cannot_hold_is_refused(dtype, values, says):
    with pytest.raises(ValueError, match=says):
        from_json(values, numpy_type(dtype))


def test_whole_floats_are_numbers_of_any_kind():
    assert from_json([1.0, 2.0], np.dtype(np.int64)).tolist() == [1, 2]


def test_what_json_cannot_hold():
    assert not is_holdable(np.array([np.nan], ml_dtypes.bfloat16))
    assert not is_holdable(np.array([np.inf], np.float16))
    assert not is_holdable(np.array([1j]))
    assert is_holdable(np.array([b"x"], object))


def test_numpy_has_every_type_but_handles_and_quantized_ones():
    lacking = {"resource", "variant", "qint8", "quint8", "qint16", "quint16", "qint32"}
    for row in DTYPES:
        if row.name in lacking:
            with pytest.raises(TypeError, match=row.name):
                numpy_type(row.name)
        else:
            assert numpy_type(row.name).name in (row.name, "object")
