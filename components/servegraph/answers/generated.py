"""Sample requests that nobody gave: made up from the dtypes and shapes of a signature, and what its graph says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from servegraph.answers.dtypes import numpy_type
from servegraph.answers.made_up import Care, Draw, Encoding
from servegraph.answers.samples import InputSpec, Samples, is_batched
from servegraph.errors import DataError

LARGE_RECORD = 50_000  # values; of larger records two are made up, so that golden requests and asking stay small
FREE_DIMENSION = 8  # made-up length of a free inner dimension
FREE_SIDE = 64  # the same for what looks like an image: a convolutional net refuses a smaller one
IMAGE_RANK = 4


def generate(
    specs: Mapping[str, InputSpec],
    rows: int = 16,
    seed: int = 0,
    *,
    encodings: Mapping[str, Encoding] | None = None,
    care: Care = "little",
    free: int | None = None,
) -> Samples:
    """Make up records that fit the dtypes and shapes: numbers of two decimals, small ids, short words.

    `encodings` says what an input must hold (`encodings.encodings` reads it off the graph). The more `care`, the fewer
    models refuse them (`Draw`), and the less they say. `free` is how long dimensions are that a shape leaves open.

    Raises:
        DataError: a dtype that no request can hold (code `CANNOT_MAKE_UP`).
    """
    draw = Draw(np.random.default_rng(seed), care)
    if care == "most":  # one number fits with whatever an input of unknown shape is computed with
        specs = {
            name: InputSpec(spec.dtype, () if spec.shape is None and spec.dtype != "string" else spec.shape)
            for name, spec in specs.items()
        }
    batched = is_batched(specs)
    shapes = {name: _made_up_shape(spec, free) for name, spec in specs.items()}
    values = sum(int(np.prod(shape[1:])) for shape in shapes.values())
    rows = 1 if not batched else 2 if values > LARGE_RECORD else rows
    inputs = {}
    for name, spec in specs.items():
        shape = (rows, *shapes[name][1:]) if batched else shapes[name]
        try:
            inputs[name] = draw.values(numpy_type(spec.dtype), shape, (encodings or {}).get(name))
        except TypeError as exc:
            raise DataError(
                f"The input {name!r} has the dtype {spec.dtype}, which no request can hold.", code="CANNOT_MAKE_UP"
            ) from exc
    return Samples(inputs, rows, generated=True, is_batched=batched)


def _made_up_shape(spec: InputSpec, free: int | None) -> tuple[int, ...]:
    shape = (None,) if spec.shape is None else spec.shape
    free = free or (FREE_SIDE if len(shape) >= IMAGE_RANK else FREE_DIMENSION)
    return tuple(free if size is None else size for size in shape)
