"""The cheapest way to call a signature that gives the same answers as the public one.

`signature(**inputs)` spends several times the time of a small graph on matching arguments. The operation below it, by
the name of its function, takes the flat list of tensors at once; that way is private to TensorFlow, so it is used only
where it answered examples with the same bits as the public way, when the model was loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np

from servegraph.serve.arrays import Array

Inputs = Mapping[str, Array]
Call = Callable[[Inputs], dict[str, Array]]

_log = logging.getLogger(__name__)
_ATOL = 1e-5
_FEW = 0.25  # of an array's values


def public_call(function: Any) -> Call:
    """Return the documented way to call a loaded signature."""
    import tensorflow as tf

    def call(inputs: Inputs) -> dict[str, Array]:
        answer = function(**{name: tf.constant(array) for name, array in inputs.items()})
        return {name: _array(tensor) for name, tensor in answer.items()}

    return call


def flat_call(function: Any) -> Call:
    """Return the direct way. Raises AttributeError, ValueError or others where this TensorFlow has no such thing."""
    import tensorflow as tf
    from tensorflow.python.eager import context, execute

    constant, run = tf.constant, execute.quick_execute
    inner = function._inference_function
    operation = inner.name.decode()
    eager = context.context()
    attributes = tuple(chain.from_iterable(eager.function_call_options.as_attrs().items()))
    captured = tuple(function.captured_inputs)
    order = tuple(function._arg_keywords)
    names = tuple(sorted(function.structured_outputs))  # the order in which tf.nest flattens a dictionary
    if len(names) != len(function.outputs) or len(order) + len(captured) != len(function.inputs):
        raise ValueError("inputs or outputs are not plain tensors")

    def call(inputs: Inputs, _keep: Any = inner) -> dict[str, Array]:  # with it goes the operation
        tensors = run(
            operation, len(names), [*[constant(inputs[name]) for name in order], *captured], attributes, eager
        )
        return {name: _array(tensor) for name, tensor in zip(names, tensors, strict=True)}

    return call


def _array(tensor: Any) -> Array:
    """Return the values of a tensor; of a lone text TensorFlow gives the bytes themselves."""
    values: Any = tensor.numpy()
    return np.array(values, object) if isinstance(values, bytes) else values


def cheapest_call(function: Any, examples: Iterable[Inputs]) -> Call:
    """Return the direct call if it answers every one of `examples` (at least one) as the public call does."""
    public = public_call(function)
    try:
        flat = flat_call(function)
        same = [answers_equal(flat(example), public(example)) for example in examples]
    except Exception as exc:  # whatever this TensorFlow lacks: the public way always works
        _log.debug("no direct call: %s", exc)
        return public
    return flat if same and all(same) else public


def answers_equal(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    """Whether two answers have the same names, types, shapes and bits."""
    return one.keys() == other.keys() and all(_equal(array, other[name]) for name, array in one.items())


def answers_close(
    one: Mapping[str, Array], other: Mapping[str, Array], rtol: float = 1e-4, atol: float | None = None
) -> bool:
    """Whether two answers agree but for rounding: what a sum in another order does to a float.

    Without `atol` it is 1e-5, or `rtol` of what a quarter of an array's values stay below: a sum of large numbers that
    comes out near 0 is off by as much as any other.
    """
    return one.keys() == other.keys() and all(_close(array, other[name], rtol, atol) for name, array in one.items())


def _equal(one: Array, other: Array) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool((one == other).all()) if one.dtype == object else one.tobytes() == other.tobytes()


def _close(one: Array, other: Array, rtol: float, atol: float | None) -> bool:
    if one.dtype.kind in "fc" and one.shape == other.shape and one.dtype == other.dtype:
        if atol is None:
            sizes = np.abs(other[np.isfinite(other)]).astype(np.float64)
            atol = max(_ATOL, rtol * float(np.quantile(sizes, _FEW))) if sizes.size else _ATOL
        return bool(np.allclose(one, other, rtol=rtol, atol=atol, equal_nan=True))
    return _equal(one, other)
