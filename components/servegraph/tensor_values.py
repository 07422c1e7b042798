"""The values of a TensorProto, as constants of a graph, defaults of a signature and warmup requests have them.

Where all values are equal it may hold one for all, and its shape is as large as a number in a file says. TensorFlow
takes the memory and sees; whoever only looks at a model must not.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.tensor_pb2 import TensorProto

LARGEST_BYTES = 1 << 26  # of what is held once, or not at all
_LEAST_DENSE = 8  # bytes in memory that a byte of the file can be: an int64 below 128
_POINTER_BYTES = 8  # of a text


def values_of(tensor: TensorProto) -> NDArray[Any]:
    """Return the values; text as an array of bytes objects.

    Raises:
        ValueError: it has not the values that its shape asks for, or they take far more memory than what it holds.
        TypeError: numpy has no such dtype.
    """
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    dtype = tf.as_dtype(tensor.dtype)
    needed = prod(sizes) * (_POINTER_BYTES if dtype == tf.string else dtype.size)
    if min(sizes, default=0) < 0 or needed > max(LARGEST_BYTES, _LEAST_DENSE * tensor.ByteSize()):
        raise ValueError(f"a {dtype.name} of the shape {sizes} is not held in {tensor.ByteSize()} bytes")
    return np.asarray(tf.make_ndarray(tensor))
