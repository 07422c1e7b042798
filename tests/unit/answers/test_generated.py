"""Records that nobody gave fit dtypes and shapes, whatever they are."""

import ml_dtypes
import numpy as np
import pytest

from servegraph.answers.generated import generate, tries
from servegraph.answers.made_up import Known
from servegraph.answers.samples import InputSpec
from servegraph.errors import DataError
from servegraph.savedmodel.dtypes import DTYPES

SPECS = {"x": InputSpec("float32", (None, 2)), "word": InputSpec("string", (None,))}


@pytest.mark.parametrize("care", ["little", "some", "most"])
def test_generated_records_fit_every_dtype_and_shape(care):
    holdable = [row.name for row in DTYPES if row.name[0] != "q" and row.name not in ("resource", "variant")]
    for shape in [(None,), (None, 3), (None, None), (), (2, 3), (0,), (None, 0)]:
        made = generate({name: InputSpec(name, shape) for name in holdable}, rows=3, care=care)
        assert made.generated
        assert made.is_batched == (shape[:1] == (None,))
        for name, values in made.inputs.items():
            assert values.dtype.name in (name, "object")
            assert len(values.shape) == len(shape)
            assert not made.is_batched or len(values) == 3


@pytest.mark.parametrize(("care", "ids"), [("little", {0, 1, 2}), ("some", {0, 1}), ("most", {0})])
def test_the_more_care_the_fewer_ids(care, ids):
    made = generate({"x": InputSpec("int32", (None, 9))}, care=care)
    assert set(made.inputs["x"].ravel().tolist()) == ids


def test_generated_numbers_are_short():
    made = generate({"x": InputSpec("float32", (None, 50)), "n": InputSpec("int64", (None,))})
    assert {len(str(value).partition(".")[2]) <= 2 for value in made.inputs["x"].ravel()} == {True}
    assert set(made.inputs["n"].tolist()) <= {0, 1, 2}


def test_two_records_of_a_large_input_are_enough():
    assert generate({"image": InputSpec("float32", (None, 224, 224, 3))}).rows == 2
    assert generate({"image": InputSpec("float32", (None, 28, 28, 1))}).rows == 16


def test_an_image_of_any_size_is_not_tiny():
    made = generate({"image": InputSpec("uint8", (None, None, None, 3))})
    assert made.inputs["image"].shape[1:] == (64, 64, 3)


def test_the_most_careful_draw_is_ones_and_the_id_0():
    specs = {**SPECS, "id": InputSpec("int32", (None,)), "b": InputSpec("bfloat16", (None,))}
    made = generate(specs, care="most")
    assert {name: set(values.ravel().tolist()) for name, values in made.inputs.items()} == {
        "x": {1.0},
        "word": {b"1"},
        "id": {0},
        "b": {1.0},
    }
    assert made.inputs["b"].dtype == ml_dtypes.bfloat16


def test_the_most_careful_draw_fits_with_any_shape_where_none_is_known():
    made = generate({"x": InputSpec("float32", None)}, care="most")
    assert made.inputs["x"].shape == ()
    assert not made.is_batched


@pytest.mark.parametrize("dtype", ["resource", "variant", "qint8", "unknown(77)", "float32_ref"])
def test_a_dtype_that_no_request_holds(dtype):
    with pytest.raises(DataError, match=r"CANNOT_MAKE_UP.*'x'"):
        generate({"x": InputSpec(dtype, (None,))})


def test_a_signature_without_inputs_is_asked_once():
    made = generate({})
    assert (made.rows, list(made.batches(4))) == (1, [{}])


def test_batches_are_slices():
    made = generate(SPECS, rows=3)
    assert [len(batch["x"]) for batch in made.batches(2)] == [2, 1]


def test_a_fixed_shape_makes_a_few_small_requests_or_two_large_ones():
    made = generate({"x": InputSpec("float32", ()), "y": InputSpec("int32", (5,))})
    assert not made.is_batched
    requests = list(made.batches(64))
    assert [(request["x"].shape, request["y"].shape) for request in requests] == [((), (5,))] * made.rows
    assert len({float(request["x"]) for request in requests}) > 1
    large = generate({"x": InputSpec("float32", (1, 64, 64, 3))})
    assert large.rows == 2
    first, second = large.requests()
    assert not np.array_equal(first["x"], second["x"])


def test_dimensions_that_a_shape_leaves_open_can_be_of_one():
    specs = {"words": InputSpec("string", (None, None)), "image": InputSpec("float32", (None, None, None, 3))}
    made = generate(specs, care="most", free=1)
    assert {name: values.shape[1:] for name, values in made.inputs.items()} == {"words": (1,), "image": (1, 1, 3)}


def test_a_lone_integer_may_count_steps_of_which_there_must_be_some():
    specs = {"h": InputSpec("float32", (None, 2)), "steps": InputSpec("int32", ()), "on": InputSpec("bool", ())}

    def steps(records):
        return {int(request["steps"]) for request in records.requests()}

    plain, *others = map(steps, tries(specs))
    assert 0 in plain
    assert any(min(found) > 0 and len(found) > 1 for found in others)
    assert steps(generate(specs, care="most", counting=True)) <= {1, 2, 3, 4}
    assert steps(generate(specs, encodings={"steps": Known((7,))}, counting=True)) == {7}
    vectors = {"h": specs["h"], "steps": InputSpec("int32", (None,))}
    assert 0 in generate(vectors, counting=True).inputs["steps"]
