"""Forms of one tensor: what they cost, and how far the values that come back are from those that went in."""

import numpy as np
import pytest
import tensorflow as tf

from servegraph.optimize.int4 import plan_int4
from servegraph.rewriting.contents import Literal, Rounded, numpy_of
from servegraph.rewriting.forms import plan_half, plan_narrow
from servegraph.rewriting.int8 import plan_int8
from servegraph.savedmodel.dtypes import DTYPES


def normal(shape):
    return Literal(np.random.default_rng(0).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "scales", "most"),
    [
        ((3, 3, 128, 256), (256,), 0.251),  # a scale per output channel, not per pair of channels
        ((3, 3, 64, 1), (64, 1), 0.37),  # depthwise: each channel has its own nine weights
        ((64, 128), (128,), 0.27),
    ],
)
def test_int8_scales_cost_little_and_levels_are_near(shape, scales, most):
    content = normal(shape)
    form = plan_int8(content, None)
    assert form.parts[1].shape == scales
    assert form.stored_bytes <= most * content.values.nbytes
    levels, scale = (b"".join(part) for part in form.stored(content, None))
    factors = np.frombuffer(scale, form.parts[1].dtype).astype(np.float32).reshape(scales)
    back = np.frombuffer(levels, np.int8).reshape(shape) * factors
    assert np.abs(back - content.values).max() <= factors.max() / 2 * 1.001
    assert np.isclose(np.square(back - content.values).mean(), form.noise, rtol=0.2)


@pytest.mark.parametrize(
    ("columns", "factor", "dtype"),
    [(128, 1.0, "float16"), (32, 1.0, "float32"), (128, 1e-5, "float32"), (128, 1e8, "float32")],
)
def test_int8_scales_are_float16_where_that_saves_and_holds_them(columns, factor, dtype):
    content = Literal(normal((64, columns)).values * np.float32(factor))
    form = plan_int8(content, None)
    assert form.parts[1].dtype == dtype
    scale = np.frombuffer(b"".join(list(form.stored(content, None))[1]), dtype).astype(np.float32)
    # Rounded up: the largest weight of a column has a level, and the steps are hardly coarser.
    exact = np.abs(content.values).max(axis=0) / 127
    assert (scale >= exact).all() or dtype == "float32"
    assert (scale <= 1.01 * exact).all()


@pytest.mark.parametrize("shape", [(64, 128), (250, 10), (3, 3, 8, 33)])
def test_int4_is_about_an_eighth(shape):
    content = normal(shape)
    form = plan_int4(content, None)
    parts = [b"".join(part) for part in form.stored(content, None)]
    assert [len(part) for part in parts] == [part.size_bytes for part in form.parts]
    assert form.stored_bytes <= 0.19 * content.values.nbytes
    assert 0 < form.noise < 0.05


def read_back(form, content):
    """What TensorFlow turns the stored parts of a form back into."""
    parts = zip(form.parts, form.stored(content, None), strict=True)
    nodes = {}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        inputs = {}
        for number, (part, chunks) in enumerate(parts):
            values = np.frombuffer(b"".join(chunks), part.dtype).reshape(part.shape)
            inputs[f"part{number}"] = tf.constant(values, name=f"part{number}")
        name = form.decode(nodes, "weight", [*inputs], content)
        definition = tf.compat.v1.GraphDef(node=nodes.values())
        [back] = tf.graph_util.import_graph_def(definition, input_map=inputs, return_elements=[f"{name}:0"], name="")
        return session.run(back)


@pytest.mark.parametrize("outlier", [1.0, 1e4, 1e7, 1e9])
@pytest.mark.parametrize("factor", [1.0, 1e-20, 1e20])
def test_one_large_weight_does_not_take_the_int4_scales_of_the_others(outlier, factor):
    content = Literal(normal((512, 60)).values * np.float32(factor))
    content.values[7, 7] = outlier * factor
    off = np.abs(read_back(plan_int4(content, None), content) - content.values)
    largest = np.abs(content.values).reshape(-1, 32, 60).max(axis=1, keepdims=True)
    # A group's outermost weight may be cut off: by little more than the step between two levels.
    assert (off.reshape(-1, 32, 60) <= 1.02 * largest / 7).all()


def test_no_int4_where_one_scale_is_beyond_what_the_others_bear():
    content = normal((512, 60))
    content.values[7, 7] = 1e12
    assert plan_int4(content, None) is None
    assert plan_int8(content, None) is not None
    content.values[7, 7] = 1.0
    content.values[:256] *= 1e-20  # rows that were never trained forbid nothing
    assert plan_int4(content, None) is not None


def test_no_form_for_what_is_not_finite():
    values = np.ones((64, 64), np.float32)
    values[3, 3] = np.nan
    assert [plan(Literal(values), None) for plan in (plan_half, plan_int8, plan_int4)] == [None] * 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_form_that_would_make_a_large_value_infinite(dtype):
    values = np.full((64, 64), np.finfo(np.float32).max, dtype) * dtype(1 if dtype == np.float32 else 1e30)
    with np.errstate(over="ignore"):
        assert [plan(Literal(values), None) for plan in (plan_half, plan_int8, plan_int4)] == [None] * 3


def test_weights_too_small_for_a_scale_become_zero():
    content = Literal(np.full((64, 64), 1e-45, np.float32))
    form = plan_int8(content, None)
    levels, scale = (b"".join(part) for part in form.stored(content, None))
    assert not np.frombuffer(levels, np.int8).any()
    assert np.isfinite(np.frombuffer(scale, form.parts[1].dtype)).all()


@pytest.mark.parametrize(("largest", "name"), [(100, "int8"), (200, "uint8"), (40_000, "uint16"), (2**31, None)])
def test_integers_are_narrowed_as_far_as_every_one_fits(largest, name):
    form = plan_narrow(Literal(np.array([0, largest] * 600)), None)
    assert (form.name if form else None) == name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounded_values_are_those_of_tensorflow(dtype):
    extremes = np.array([0, -0.0, 1e-8, 6e-8, 1e-40, 65504, 65520, 1e38, 3.4e38, -1e5, 1 + 2**-11], np.float32)
    values = np.concatenate([extremes, normal((1013,)).values]).reshape(32, 32)
    rounded = b"".join(Rounded(Literal(values), dtype).chunks(None))
    assert rounded == tf.cast(values, dtype).numpy().tobytes()


@pytest.mark.parametrize("plan", [plan_int8, plan_int4])
def test_what_is_rounded_already_is_not_rounded_twice(plan):
    content = normal((64, 128))
    rounded = Rounded(content, "bfloat16")
    stored = [[b"".join(part) for part in plan(each, None).stored(each, None)] for each in (content, rounded)]
    assert stored[0] == stored[1]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda row: row.name)
def test_every_type_of_fixed_size_has_that_size_in_numpy(dtype):
    if dtype.size_bytes is None:
        with pytest.raises(TypeError, match=dtype.name):
            numpy_of(dtype.name)
    else:
        assert numpy_of(dtype.name).itemsize == dtype.size_bytes
