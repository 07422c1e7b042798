"""Values of TensorProtos, of which a few bytes must not become gigabytes."""

import numpy as np
import pytest
import tensorflow as tf

from servegraph.tensor_values import values_of

FOUR = np.arange(4, dtype=np.float32)


def proto(value, *sizes):
    """A TensorProto of `value` that claims another shape."""
    made = tf.make_tensor_proto(value)
    made.tensor_shape.CopyFrom(tf.TensorShape([]).as_proto())
    for size in sizes:
        made.tensor_shape.dim.add().size = size
    return made


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        (tf.make_tensor_proto(FOUR), FOUR),
        (tf.make_tensor_proto([b"a", b"b"]), np.array([b"a", b"b"], object)),
        (proto(2.0, 1000), np.full(1000, 2.0, np.float32)),
        (tf.make_tensor_proto(np.zeros((0, 3))), np.zeros((0, 3))),
    ],
)
def test_values(tensor, values):
    np.testing.assert_array_equal(values_of(tensor), values)


@pytest.mark.parametrize(
    "tensor",
    [proto(2.0, 10**9), proto(b"a", 2**40), proto(1, 2**62, 2**62), proto(1, -3), proto(FOUR, 5), proto(b"a", -1)],
)
def test_a_shape_that_is_not_held(tensor):
    with pytest.raises(ValueError, match=r"not held|reshape|Shape"):
        values_of(tensor)
