"""Inputs that a request leaves out: a server takes the default that the signature has of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.samples import InputSpec, Request, fitting, is_batched, length_of
from servegraph.errors import DataError
from servegraph.savedmodel.dtypes import dtype_name


def missing(given: Collection[str], specs: Mapping[str, InputSpec]) -> list[str]:
    """Return the inputs of which there is neither a value nor a default."""
    return [name for name, spec in specs.items() if name not in given and spec.default is None]


def filled(given: Request, specs: Mapping[str, InputSpec]) -> Request:
    """Return a request with the defaults of what it leaves out; one of one row stands for each row of a batch.

    Raises:
        DataError: a default does not fit its input (code `BAD_SAMPLES`).
    """
    rows = length_of(given) if given and is_batched(specs) else 1
    defaults = {name: _default(name, spec) for name, spec in specs.items() if name not in given}
    return {**given, **{n: np.repeat(d, rows, axis=0) if d.shape[:1] == (1,) else d for n, d in defaults.items()}}


def is_one_row(name: str, spec: InputSpec) -> bool:
    """Whether the default of an input can stand for each row of a batch. Raises as `filled`."""
    return _default(name, spec).shape[:1] == (1,)


def defaults(specs: Mapping[str, InputSpec]) -> Request:
    """Return the defaults of all inputs that have one. Raises as `filled`."""
    return {name: _default(name, spec) for name, spec in specs.items() if spec.default is not None}


def _default(name: str, spec: InputSpec) -> NDArray[Any]:
    from tensorflow.core.framework.tensor_pb2 import TensorProto  # late: of few models is this asked

    from servegraph.tensor_values import values_of

    where = f"default of the input {name!r}"
    try:
        proto = TensorProto.FromString(spec.default or b"")
        if dtype_name(proto.dtype) != spec.dtype:
            raise TypeError(f"it is {dtype_name(proto.dtype)}, the input {spec.dtype}")
        return fitting(values_of(proto), spec, where)
    except DataError:
        raise
    except Exception as exc:  # protobuf's DecodeError, or what numpy says of too few values
        raise DataError(
            f"The {where} cannot be read: {exc}.", code="BAD_SAMPLES", fix="Give the input a value in each record."
        ) from exc
