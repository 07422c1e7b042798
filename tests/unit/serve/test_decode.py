"""Requests as TF Serving's REST API documents them, and everything that may be wrong with one."""

import json
import re
from random import Random
from typing import Any

import numpy as np
import pytest

from servegraph.errors import RequestError
from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.arrays import to_array
from servegraph.serve.decode import decode
from servegraph.serve.large_body import LARGE_BODY_BYTES, _shape
from servegraph.serve.signatures import ServingGraph


def info(dtype="float32", shape=(None,), encoding="dense"):
    return TensorInfo(tensors=(), dtype=dtype, shape=shape, encoding=encoding)


ONE = ServingGraph({"serving_default": Signature("", {"x": info()}, {"y": info()})}, declares_shapes=True)
TEXT = ServingGraph({"serving_default": Signature("", {"t": info("string")}, {"y": info()})}, True)
# The request of `Specifying input tensors in row format`, g3doc/api_rest.md in tensorflow/serving.
THREE = ServingGraph(
    {
        "serving_default": Signature(
            "",
            {
                "tag": info("string"),
                "signal": info("int64", (None, 5)),
                "sensor": info("int32", (None, 2, 2)),
            },
            {"y": info()},
        ),
        "other": Signature("", {"x": info("bool")}, {"y": info()}),
    },
    declares_shapes=True,
)
ROWS = [
    {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
    {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
]
COLUMNS = {
    "tag": ["foo", "bar"],
    "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
    "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
}


def ask(document, graph=ONE):
    return decode(document if isinstance(document, bytes) else json.dumps(document).encode(), graph)


@pytest.mark.parametrize(
    ("document", "form"),
    [({"instances": ROWS}, "row"), ({"inputs": COLUMNS}, "column")],
    ids=["row", "column"],
)
def test_both_formats_of_the_documentation_give_the_same_arrays(document, form):
    request = ask(document, THREE)
    assert (request.signature_name, request.format) == ("serving_default", form)
    assert request.inputs["tag"].tolist() == [b"foo", b"bar"]
    assert request.inputs["signal"].dtype == np.int64
    assert request.inputs["signal"].tolist() == COLUMNS["signal"]
    assert request.inputs["sensor"].dtype == np.int32
    assert request.inputs["sensor"].tolist() == COLUMNS["sensor"]


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [1, 2.5]},
        {"instances": [{"x": 1}, {"x": 2.5}]},
        {"inputs": [1, 2.5]},
        {"inputs": {"x": [1, 2.5]}},
        {"inputs": [1, 2.5], "signature_name": "serving_default"},
    ],
)
def test_a_lone_input_may_go_without_its_name(document):
    array = ask(document).inputs["x"]
    assert array.dtype == np.float32
    assert array.tolist() == [1.0, 2.5]


def test_another_signature_is_chosen_by_name():
    request = ask({"signature_name": "other", "instances": [True, False]}, THREE)
    assert request.inputs["x"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b64": "aW1hZ2U="}, b"image"),
        ({"b64": "aW1hZ2U"}, b"image"),  # absl::Base64Unescape takes it without padding
        ({"b64": "_-8="}, b"\xff\xef"),  # and the web-safe alphabet
        ("ä\x00", "ä\x00".encode()),
    ],
)
def test_strings_and_bytes(value, expected):
    for document in ({"instances": [value]}, {"instances": [{"t": value}]}, {"inputs": {"t": [value]}}):
        assert ask(document, TEXT).inputs["t"].tolist() == [expected]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_float_types(dtype):
    array = to_array([[1, 0.5], [-2.0, 4]], "x", info(dtype))
    assert array.dtype.name == dtype
    assert array.astype(float).tolist() == [[1, 0.5], [-2, 4]]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integer_types_up_to_their_limits_and_not_beyond(dtype):
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    assert to_array([low, high], "x", info(dtype)).tolist() == [low, high]
    for beyond in (low - 1, high + 1):
        with pytest.raises(RequestError, match=rf"Input 'x' at \[1\]: {beyond} is out of range of {dtype}"):
            to_array([0, beyond], "x", info(dtype))


def test_scalars_and_empty_lists():
    assert to_array(3, "x", info()).shape == ()
    assert to_array([], "x", info()).shape == (0,)
    assert to_array([[], []], "x", info("string")).shape == (2, 0)
    assert to_array([], "x", info("int64")).dtype == np.int64


# One row a mistake: dtype of the input, the value, what the answer has to say.
BAD_VALUES = [
    ("float32", [1, "2"], r"at \[1\] must be a number, not a string"),
    ("float32", [1, True], r"at \[1\] must be a number, not a boolean"),
    ("float32", [1.0, None], r"at \[1\] must be a number, not null"),
    ("float32", [{"b64": "AA=="}], r"at \[0\] must be a number, not an object"),
    ("float32", [1e39], r"at \[0\]: 1e\+39 is out of range of float32"),
    ("float16", [[1, 70000]], r"at \[0\]\[1\]: 70000 is out of range of float16"),
    ("float32", [1.5, 16777217], r"at \[1\]: cannot convert 16777217 to float32 without loss of precision"),
    ("float32", [[1, 2], [3]], r"ragged: the list at \[1\] has 1 elements, the ones before it 2"),
    ("float32", [[1, 2], 3], r"ragged: a whole number at \[1\], beside a list"),
    ("float32", [1, [2]], r"ragged: a list at \[1\], beside a whole number"),
    ("int64", [1, 2.0], r"at \[1\] must be a whole number, not a decimal number"),
    ("int64", [1, True], r"at \[1\] must be a whole number, not a boolean"),
    ("int32", ["1"], r"at \[0\] must be a whole number, not a string"),
    ("bool", [True, 1], r"at \[1\] must be true or false, not a whole number"),
    ("string", ["a", 1], r"at \[1\] must be a string or .*, not a whole number"),
    ("string", ["a", None], r"at \[1\] must be a string or .*, not null"),
    ("string", [{"b64": "not base64!"}], r"at \[0\]: unable to base64 decode"),
    ("string", [{"b64": 1}], r"at \[0\]: an object here must be"),
    ("string", [{"b64": "AA==", "c": 1}], r"at \[0\]: an object here must be"),
]


@pytest.mark.parametrize(("dtype", "value", "says"), BAD_VALUES)
def test_bad_values(dtype, value, says):
    with pytest.raises(RequestError, match=r"^\[BAD_REQUEST\] Input 'x' .*" + says):
        to_array(value, "x", info(dtype))


@pytest.mark.parametrize(("dtype", "encoding"), [("complex64", "dense"), ("resource", "dense"), ("float32", "sparse")])
def test_what_json_cannot_carry(dtype, encoding):
    with pytest.raises(RequestError, match="JSON cannot carry") as caught:
        to_array([1], "x", info(dtype, encoding=encoding))
    assert caught.value.code == "UNIMPLEMENTED"


SCALED = ServingGraph(
    {"serving_default": Signature("", {"x": info(), "scale": info(shape=(None,))}, {"y": info()}, ("scale",))}, True
)


@pytest.mark.parametrize("document", [{"instances": [{"x": 1}, {"x": 2}]}, {"inputs": {"x": [1, 2]}}])
def test_an_input_that_has_a_default_may_be_left_out(document):
    assert ask(document, SCALED).inputs.keys() == {"x"}
    whole = json.loads(json.dumps(document).replace('"x"', '"scale": 2, "x"', 1))
    with pytest.raises(RequestError):  # of one row of two, or one value as a column
        ask(whole, SCALED)


def test_an_input_with_a_default_is_left_out_of_all_rows_or_of_none():
    both = ask({"instances": [{"x": 1, "scale": 2}, {"x": 1, "scale": 3}]}, SCALED)
    assert both.inputs["scale"].tolist() == [2, 3]
    for rows in ([{"x": 1}, {"x": 1, "scale": 3}], [{"x": 1, "scale": 3}, {"x": 1}]):
        with pytest.raises(RequestError, match=r"instances\[1\] has the inputs .* the ones before it"):
            ask({"instances": rows}, SCALED)
    with pytest.raises(RequestError, match=r"lacks the inputs \['x'\]"):
        ask({"inputs": {"scale": [1]}}, SCALED)


# One row a mistake: the body, what the answer has to say.
BAD_REQUESTS = [
    (b"", "JSON Parse error"),
    (b"{", "JSON Parse error"),
    (b"\xff\xfe", "JSON Parse error"),
    (b'{"instances": [nan]}', "JSON Parse error"),
    (b'{"instances": [NaN}', "JSON Parse error"),
    (b'{"instances": [NaN, "\xff"]}', "invalid UTF-8"),
    (b'{"instances": ' + b"[" * 5000 + b"NaN", "JSON Parse error"),
    (b'{"instances": ' + b"[" * 70 + b"1" + b"]" * 70 + b"}", "nested more than 64 lists deep"),
    (b'{"instances": [1e999]}', "JSON Parse error: number is infinity"),
    (b"[" * 100_000, "JSON Parse error"),
    ([1], "A request is a JSON object, not a list"),
    ({}, "either 'instances' .* or 'inputs'"),
    ({"instances": [1], "inputs": [1]}, "exactly one of them"),
    ({"signature_name": 1, "instances": [1]}, "'signature_name' must be a string, not a whole number"),
    ({"signature_name": "no", "instances": [1]}, "'no' not found .*The model has: serving_default"),
    ({"instances": []}, "a list of at least one row, not an empty list"),
    ({"instances": 1}, "a list of at least one row, not a whole number"),
    ({"instances": {"x": 1}}, "a list of at least one row, not an object"),
    ({"instances": [{"x": 1}, 2]}, r"instances\[1\] is a whole number, the ones before it are objects"),
    ({"instances": [1, {"x": 2}]}, r"at \[1\] must be a number, not an object"),
    ({"instances": [{"x": 1}, {"y": 1}]}, r"instances\[1\] lacks the inputs \['x'\] and has \['y'\]"),
    ({"instances": [{"x": 1, "z": 1}]}, r"instances\[0\] has \['z'\], which the signature does not"),
    ({"instances": [{}]}, r"instances\[0\] lacks the inputs \['x'\]"),
    ({"inputs": {"x": [1], "z": [1]}}, r"'inputs' has \['z'\], which the signature does not"),
    ({"inputs": {}}, r"'inputs' lacks the inputs \['x'\]"),
    ({"inputs": None}, r"must be a number, not null"),
    ({"instances": [[1], [2]]}, r"Input 'x' has the shape \[2, 1\], the signature has \[\?\]"),
]


@pytest.mark.parametrize(("document", "says"), BAD_REQUESTS)
def test_bad_requests(document, says):
    with pytest.raises(RequestError, match=says):
        ask(document)


def test_several_inputs_have_to_be_named():
    with pytest.raises(RequestError, match="must be an object with the keys: sensor, signal, tag; the first is"):
        ask({"instances": [1]}, THREE)
    with pytest.raises(RequestError, match="must be an object with the keys: sensor, signal, tag; it is a list"):
        ask({"inputs": [1]}, THREE)


def test_the_most_common_wrong_shape_says_what_to_do():
    graph = ServingGraph({"serving_default": Signature("", {"x": info(shape=(None, 1))}, {})}, True)
    with pytest.raises(RequestError, match=r"has the shape \[2\], the signature has \[\?, 1\]") as caught:
        ask({"instances": [1, 2]}, graph)
    assert caught.value.fix == "Put each value in a list of its own."


def test_shapes_of_tf1_signatures_are_remarks():
    # TF Serving's own example: half_plus_two has the signature [?, 1] and is asked [1.0, 2.0, 5.0].
    graph = ServingGraph({"serving_default": Signature("", {"x": info(shape=(None, 1))}, {})}, False)
    assert ask({"instances": [1.0, 2.0, 5.0]}, graph).inputs["x"].shape == (3,)


@pytest.mark.parametrize("rows", [[1.0], [[1.0]], [[[1.0]]]])
def test_what_lacks_dimensions_of_an_image_never_reaches_a_convolution(rows):
    # There TensorFlow would end the server: "Check failed: index >= 0 && index < num_total_dims".
    graph = ServingGraph({"serving_default": Signature("", {"x": info(shape=(None, 8, 8, 1))}, {})}, False)
    with pytest.raises(RequestError, match=r"the signature has \[\?, 8, 8, 1\]"):
        ask({"instances": rows}, graph)
    assert ask({"instances": [[[[1.0]]]]}, graph).inputs["x"].shape == (1, 1, 1, 1)


def test_a_fixed_batch_dimension_is_left_to_the_graph():
    graph = ServingGraph({"serving_default": Signature("", {"x": info(shape=(1,))}, {})}, True)
    assert ask({"instances": [1.0, 2.0]}, graph).inputs["x"].shape == (2,)


def test_nan_and_infinity_are_numbers_as_with_tf_serving():
    body = b'{"instances": [1.0, NaN, Infinity, -Infinity, Inf, -Inf, -NaN]}'
    assert str(ask(body).inputs["x"].tolist()) == "[1.0, nan, inf, -inf, inf, -inf, nan]"
    text = decode(b'{"inputs": ["NaN, \\"Inf\\"", "x"], "parameters": NaN}', TEXT)
    assert text.inputs["t"].tolist() == [b'NaN, "Inf"', b"x"]
    with pytest.raises(RequestError, match="must be a whole number"):
        decode(b'{"inputs": {"tag": ["a"], "signal": [[NaN, 1, 1, 1, 1]], "sensor": [[[1, 1], [1, 1]]]}}', THREE)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (rb'{"inputs": ["\ud800", "NaN"]}', "half of a surrogate pair"),
        (rb'{"inputs": ["a"], "parameters": [1e400, NaN]}', "too large"),
    ],
)
def test_what_comes_beside_such_a_number_is_looked_at_as_closely(body, says):
    with pytest.raises(RequestError, match=says):
        decode(body, TEXT)
    assert decode(rb'{"inputs": ["\ud83d\ude00", "NaN"]}', TEXT).inputs["t"].tolist() == ["😀".encode(), b"NaN"]


def test_a_mark_of_the_byte_order_is_passed_over():
    assert ask(b'\xef\xbb\xbf{"instances": [1.5]}').inputs["x"].tolist() == [1.5]


def test_a_lone_text_is_no_number():
    graph = ServingGraph({"serving_default": Signature("", {"x": info(shape=None)}, {})}, declares_shapes=False)
    with pytest.raises(RequestError, match="must be a number, not a string"):
        decode(b'{"inputs": "1.5"}', graph)


def test_a_signature_may_be_named_in_the_parameters_of_vertex():
    document = {"instances": [True], "parameters": {"signature_name": "other", "confidence": 0.5}}
    assert ask(document, THREE).signature_name == "other"
    assert ask({"instances": [1], "parameters": {"confidence": 0.5}}).signature_name == "serving_default"


# Large bodies

LARGE = {
    "float": ("float32", np.random.default_rng(1).normal(size=(7, 40, 30, 3)).round(3)),
    "whole": ("uint8", np.random.default_rng(1).integers(0, 256, (5, 50, 50))),
    "one row": ("float64", np.random.default_rng(1).normal(size=(1, 9000))),
    "flat": ("int64", np.arange(9000)),
}


def large(value, dtype, shape=None):
    graph = ServingGraph({"serving_default": Signature("", {"x": info(dtype, shape)}, {})}, True)
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    assert len(body) > LARGE_BODY_BYTES
    return decode(body, graph)


@pytest.mark.parametrize("key", ["instances", "inputs"])
@pytest.mark.parametrize("name", LARGE)
def test_large_arrays_come_as_they_were_sent(key, name):
    dtype, values = LARGE[name]
    for document in ({key: values.tolist()}, {"signature_name": "serving_default", key: values.tolist()}):
        request = large(document, dtype)
        array = request.inputs["x"]
        assert (array.dtype.name, array.shape) == (dtype, values.shape)
        assert array.flags.writeable or array.base is not None
        np.testing.assert_array_equal(array, values.astype(dtype))
        assert request.format == ("row" if key == "instances" else "column")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda rows: rows[3].pop(), r"ragged: the list at \[3\] has 199 elements, the ones before it 200"),
        (lambda rows: rows[3].__setitem__(5, True), r"at \[3\]\[5\] must be a number, not a boolean"),
        (lambda rows: rows[3].__setitem__(5, "1"), r"at \[3\]\[5\] must be a number, not a string"),
        (lambda rows: rows[3].__setitem__(5, None), r"at \[3\]\[5\] must be a number, not null"),
        (lambda rows: rows[3].__setitem__(5, [1]), r"ragged: a list at \[3\]\[5\]"),
        (lambda rows: rows[3].__setitem__(5, 1e39), r"at \[3\]\[5\]: 1e\+39 is out of range"),
        (lambda rows: rows[3].__setitem__(5, 16777217), r"at \[3\]\[5\]: cannot convert 16777217"),
        (lambda rows: rows.__setitem__(3, 1.5), r"ragged: a decimal number at \[3\]"),
        (lambda rows: rows.__setitem__(3, []), r"ragged: the list at \[3\] has 0 elements"),
    ],
)
def test_what_is_wrong_with_a_large_body_is_said_as_of_a_small_one(spoil, says):
    rows = np.random.default_rng(1).normal(size=(40, 200)).round(3).tolist()
    spoil(rows)
    with pytest.raises(RequestError, match=says):
        large({"instances": rows}, "float32", (None, 200))


def test_large_bodies_of_other_kinds():
    many = list(range(9000))
    assert large({"instances": many, "parameters": {}}, "float32").inputs["x"].shape == (9000,)
    assert large({"instances": [str(value) for value in many]}, "string").inputs["x"].shape == (9000,)
    assert large(json.dumps({"instances": [float("nan"), *many]}).encode(), "float32").inputs["x"].shape == (9001,)
    assert large({"instances": [[1.0, []]] * 0 or [[[]]] * 9000}, "float32").inputs["x"].shape == (9000, 1, 0)
    with pytest.raises(RequestError, match="exactly one of them"):
        large({"instances": many, "inputs": many}, "float32")
    with pytest.raises(RequestError, match="must be a whole number"):
        large({"instances": [*many, 1.5]}, "int64")
    with pytest.raises(RequestError, match="has the shape"):
        large({"instances": many}, "float32", (None, 2))


def test_shapes_of_large_bodies_are_those_that_numpy_finds():
    random = Random(1)

    def nested(depth: int) -> Any:
        if not depth:
            return random.choice([1, 2.5, -3e-7])
        return [nested(random.choice([depth - 1] * 9 + [0])) for _ in range(random.choice([0, 1, 1, 2, 2, 3]))]

    found = set()
    for _ in range(5000):
        value = [nested(random.randint(0, 3)) for _ in range(random.randint(1, 3))]
        try:
            expected = np.array(value, np.float64).shape
        except ValueError:  # ragged
            expected = None
        size = sum(1 for _ in re.finditer(r"[^\[\], ]+", json.dumps(value)))
        shape = _shape(json.dumps({"instances": value}, separators=random.choice([(",", ":"), None])).encode(), size)
        assert shape == (expected if size else None), value
        found.add(shape)
    assert len(found) > 20
