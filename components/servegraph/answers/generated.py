"""Sample requests that nobody gave: made up from the dtypes and shapes of a signature, and what its graph says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.answers import left_out
from servegraph.answers.composites import compose, composites
from servegraph.answers.dtypes import is_float, numpy_type
from servegraph.answers.made_up import Care, Draw, Encoding
from servegraph.answers.samples import InputSpec, Request, Samples, is_batched
from servegraph.errors import DataError, ModelError, Refusal

LARGE_RECORD = 50_000  # values; of larger records two are made up, so that golden requests and asking stay small
FREE_DIMENSION = 8  # made-up length of a free inner dimension
FREE_SIDE = 64  # the same for what looks like an image: a convolutional net refuses a smaller one
IMAGE_RANK = 4
FREE_SOUND = 4096  # of what looks like sound: striding along a few values a net may answer from no input at all
_APART = 4  # requests of a signature that takes one record at a time, such as the number of a branch
_MOST_COUNTED = 4  # a number of steps, of words to make: an input of one integer, of which 0 may leave nothing to do
_SMALL_RECORD = 4096  # values; of larger ones `_FEW` are made up, as of large ones in a batch
_FEW = 2  # of one alone nobody can tell whether the model sees anything of it
_COMPOSED_ROWS = (1, 2, 13)  # of requests that hold a sparse or ragged tensor
_LONGER = (64, 256, 1024, 4096, 16_384, 65_536)  # for a model that refuses a short record, as of sound
_MOST_VALUES = 400_000  # of a longer record
_MOST_WORDS = 13_000  # of one that holds texts or ids: attention over more would exhaust the memory

Try = Samples | Callable[[], Samples]  # records, or what makes them once it is their turn


def generate(
    specs: Mapping[str, InputSpec],
    rows: int = 16,
    seed: int = 0,
    *,
    encodings: Mapping[str, Encoding] | None = None,
    care: Care = "little",
    free: int | None = None,
    counting: bool = False,
) -> Samples:
    """Make up records that fit the dtypes and shapes: numbers of two decimals, small ids, short words.

    `encodings` says what an input must hold (`encodings.encodings` reads it off the graph). The more `care`, the fewer
    models refuse them (`Draw`), and the less they say; with `some` an input that has a default is asked with that.
    `free` is how long dimensions are that a shape leaves open. With `counting` a lone integer is a number of something,
    such as of steps to take: never 0.

    Raises:
        DataError: a dtype that no request can hold (code `CANNOT_MAKE_UP`).
    """
    draw = Draw(np.random.default_rng(seed), care)
    if care == "most":  # one number fits with whatever an input of unknown shape is computed with
        specs = {
            name: replace(spec, shape=() if spec.shape is None and spec.dtype != "string" else spec.shape)
            for name, spec in specs.items()
        }
    batched = is_batched(specs)
    shapes = {name: _made_up_shape(spec, free) for name, spec in specs.items()}
    if not batched:
        values = sum(int(np.prod(shape)) for shape in shapes.values())
        count = 1 if not values else _APART if values <= _SMALL_RECORD else _FEW
        first, *more = (_request(specs, shapes, draw, encodings or {}) for _ in range(count))
        for request in (first, *more) if counting else ():
            for name in _lone_integers(specs, encodings or {}):
                request[name] = np.array(draw.random.integers(1, _MOST_COUNTED + 1), request[name].dtype)
        return Samples(first, count, generated=True, is_batched=False, more=tuple(more))
    values = sum(int(np.prod(shape[1:])) for shape in shapes.values())
    rows = _FEW if values > LARGE_RECORD else rows
    of_rows = {name: (rows, *shape[1:]) for name, shape in shapes.items()}
    return Samples(_request(specs, of_rows, draw, encodings or {}), rows, generated=True)


def _request(
    specs: Mapping[str, InputSpec],
    shapes: Mapping[str, tuple[int, ...]],
    draw: Draw,
    encodings: Mapping[str, Encoding],
) -> Request:
    inputs = {}
    for name, spec in specs.items():
        if spec.default is not None and draw.care != "little":
            continue
        encoding = encodings.get(name)
        is_mask = "mask" in name.lower() and encoding is None
        try:
            inputs[name] = (draw.mask if is_mask else draw.values)(numpy_type(spec.dtype), shapes[name], encoding)
        except TypeError as exc:
            raise DataError(
                f"The input {name!r} has the dtype {spec.dtype}, which no request can hold.",
                code="CANNOT_MAKE_UP",
                fix="Export a signature whose inputs are numbers, booleans or text.",
            ) from exc
    return left_out.filled(inputs, specs)


def _lone_integers(specs: Mapping[str, InputSpec], encodings: Mapping[str, Encoding]) -> list[str]:
    """Return the inputs of one integer, of which the graph does not say what it must be."""
    lone = [n for n, spec in specs.items() if spec.shape == () and spec.default is None and n not in encodings]
    return [name for name in lone if np.issubdtype(numpy_type(specs[name].dtype), np.integer)]


def tries(specs: Mapping[str, InputSpec], encodings: Mapping[str, Encoding] | None = None) -> list[Samples]:
    """Return made-up records, and ever more careful ones for a model that refuses them.

    There are none where a dtype has no values. What looks like the parts of a sparse or ragged tensor is tried as that
    first, because a graph may take parts that do not fit each other and answer nothing that means anything.
    """
    cares: tuple[Care, ...] = ("little", "some", "most")
    try:
        sound = (
            [generate(specs, encodings=encodings, free=FREE_SOUND)]
            if not encodings and _looks_like_sound(specs)
            else []
        )
        little, some, most = (generate(specs, encodings=encodings, care=care) for care in cares)
        counted = (
            [generate(specs, encodings=encodings, care=care, counting=True) for care in cares]
            if _lone_integers(specs, encodings or {})
            else []
        )
        one_each = generate(specs, encodings=encodings, care="most", free=1)
        whole = [_composed(specs, encodings or {}, care) for care in cares] if composites(specs) else []
        return [*whole, *sound, little, *counted, some, generate(specs), most, one_each]
    except DataError:
        return []


def _composed(specs: Mapping[str, InputSpec], encodings: Mapping[str, Encoding], care: Care) -> Samples:
    """Return requests of some rows each, in which sparse and ragged tensors are whole."""
    draw, found = Draw(np.random.default_rng(0), care), composites(specs)
    first, *more = (compose(specs, found, draw, rows, encodings) for rows in _COMPOSED_ROWS)
    return Samples(first, len(_COMPOSED_ROWS), generated=True, is_batched=False, more=tuple(more))


def longer(specs: Mapping[str, InputSpec], encodings: Mapping[str, Encoding] | None = None) -> Iterator[Try]:
    """Yield what makes records whose open dimensions are ever longer: a convolution leaves nothing of a short one."""
    if not any(None in spec.shape[1:] for spec in specs.values() if spec.shape):
        return
    holds_words = bool(encodings) or any(spec.dtype in ("string", "int32", "int64") for spec in specs.values())
    for free in _LONGER:
        values = sum(int(np.prod(_made_up_shape(spec, free)[1:], dtype=float)) for spec in specs.values())
        if values <= (_MOST_WORDS if holds_words else _MOST_VALUES):
            yield partial(generate, specs, encodings=encodings, care="some", free=free)


def first_answered(
    specs: Mapping[str, InputSpec],
    ask: Callable[[Request], Mapping[str, NDArray[Any]]],
    encodings: Mapping[str, Encoding] | None = None,
) -> Samples | str:
    """Return the first made-up records of which one gets an answer with a value from `ask`; else why there are none."""
    why = "no answer holds a value, or a finite number"
    for records in (*tries(specs, encodings), *longer(specs, encodings)):
        samples = made(records)
        try:
            answer = ask(next(samples.batches(1)))
        except (ModelError, Refusal) as refused:
            why = refused.message
            continue
        if say_something([answer]):
            return samples
    return why


def made(records: Try) -> Samples:
    """Return the records."""
    return records if isinstance(records, Samples) else records()


def say_something(answers: Sequence[Mapping[str, NDArray[Any]]]) -> bool:
    """Whether there is a value in any answer. Answers without are equal whatever the model computes."""
    return any(holds_value(values) for answer in answers for values in answer.values())


def tell_apart(answers: Sequence[Mapping[str, NDArray[Any]]]) -> bool:
    """Whether records were answered differently, or there was one only. Else the model may see nothing of them."""
    first: dict[str, NDArray[Any]] = {}
    is_one = True
    for answer in answers:
        for name, values in answer.items():
            for row in values if values.ndim else ():
                if name not in first:
                    first[name] = row
                elif np.array_equal(first[name], row):
                    is_one = False
                else:
                    return True
    return is_one


def holds_value(output: NDArray[Any]) -> bool:
    """Whether there is one in an output, and of numbers a finite one: NaN is all that some models make of noise."""
    return bool(np.isfinite(output).any()) if is_float(output.dtype) or output.dtype.kind == "c" else output.size > 0


def _looks_like_sound(specs: Mapping[str, InputSpec]) -> bool:
    """Whether all that is open are lengths of plain numbers: [batch, values]."""
    opened = [spec for spec in specs.values() if spec.shape and None in spec.shape[1:]]
    return bool(opened) and all(spec.shape == (None, None) and spec.dtype == "float32" for spec in opened)


def _made_up_shape(spec: InputSpec, free: int | None) -> tuple[int, ...]:
    shape = (None,) if spec.shape is None else spec.shape
    free = free or (FREE_SIDE if len(shape) >= IMAGE_RANK else FREE_DIMENSION)
    return tuple(free if size is None else size for size in shape)
