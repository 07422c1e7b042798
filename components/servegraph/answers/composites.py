"""Sparse and ragged tensors among the inputs of a signature, which takes their parts one by one.

TensorFlow writes an argument `x` of a `tf.function` as the inputs `x`, `x_1`, …: indices, values and dense shape of a
`tf.SparseTensor`; values and row splits, the outermost first, of a `tf.RaggedTensor`. Who writes a signature by hand
names them: `tokens` and `token_splits`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from servegraph.answers.dtypes import numpy_type
from servegraph.answers.made_up import Draw, Encoding, Known
from servegraph.answers.samples import InputSpec, Request, specs_of
from servegraph.savedmodel.graph import Signature

OPEN_WIDTH = 8  # of a sparse dimension of which the graph does not say how large
_ENTRIES = 4  # of a sparse row
_SPLITS = "split"  # in the name of an input
_LENGTHS = (3, 6)  # of a ragged row: a request never has as many values as row splits


@dataclass(frozen=True)
class Sparse:
    """The names of the parts of a sparse tensor of this rank."""

    indices: str
    values: str
    dense_shape: str
    rank: int

    def fill(self, specs: Mapping[str, InputSpec], draw: Draw, rows: int, encodings: Mapping[str, Encoding]) -> Request:
        """Make up its parts: about as many entries a row, from all over it, in order."""
        known = encodings.get(self.dense_shape)
        width = int(known.keys[-1]) + 1 if isinstance(known, Known) else OPEN_WIDTH
        shape = [rows, *[width] * (self.rank - 1)] if self.rank > 1 else [width]
        entries = sorted({tuple(map(int, draw.random.integers(shape))) for _ in range(_ENTRIES * rows)})
        return {
            self.indices: np.array(entries, np.int64),
            self.values: draw.values(numpy_type(specs[self.values].dtype), (len(entries),), encodings.get(self.values)),
            self.dense_shape: np.array(shape, np.int64),
        }

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its inputs."""
        return self.indices, self.values, self.dense_shape


@dataclass(frozen=True)
class Ragged:
    """The names of the parts of a ragged tensor; `splits` from the outermost dimension inwards."""

    values: str
    splits: tuple[str, ...]

    def fill(self, specs: Mapping[str, InputSpec], draw: Draw, rows: int, encodings: Mapping[str, Encoding]) -> Request:
        """Make up its parts: rows of different lengths."""
        made: Request = {}
        for name in self.splits:
            ends = np.cumsum(draw.random.integers(*_LENGTHS, size=rows))
            made[name] = np.array([0, *ends], numpy_type(specs[name].dtype))
            rows = int(ends[-1])
        inner = [OPEN_WIDTH if size is None else size for size in (specs[self.values].shape or ())[1:]]
        made[self.values] = draw.values(
            numpy_type(specs[self.values].dtype), (rows, *inner), encodings.get(self.values)
        )
        return made

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its inputs."""
        return self.values, *self.splits


def sparse_parts(name: str) -> tuple[str, str, str]:
    """Return what indices, values and dense shape of an input that is a sparse tensor are called."""
    return f"{name}_indices", f"{name}_values", f"{name}_dense_shape"


def asked_specs(signature: Signature) -> dict[str, InputSpec]:
    """Return what a signature is asked with: its inputs; of one that is a sparse tensor, as in TF1, its parts."""
    found: dict[str, InputSpec] = {}
    for name, spec in specs_of(signature).items():
        if signature.inputs[name].encoding != "sparse":
            found[name] = spec
            continue
        rank = None if spec.shape is None else len(spec.shape)
        parts = (InputSpec("int64", (None, rank)), InputSpec(spec.dtype, (None,)), InputSpec("int64", (rank,)))
        found |= zip(sparse_parts(name), parts, strict=True)
    return found


def composites(specs: Mapping[str, InputSpec]) -> list[Sparse | Ragged]:
    """Return the sparse and ragged tensors that shapes and names tell; a guess, which a model may refuse."""
    left = dict(specs)
    found: list[Sparse | Ragged] = []
    for name, spec in specs.items():
        if spec.dtype != "int64" or spec.shape is None or len(spec.shape) != 1 or not spec.shape[0]:
            continue
        rank = spec.shape[0]
        indices = _nearest(name, (n for n, s in left.items() if s.dtype == "int64" and s.shape in _columns(rank)))
        values = _nearest(name, (n for n, s in left.items() if s.shape == (None,)))
        if indices and values:
            found.append(Sparse(indices, values, name, rank))
            for part in found[-1].parts:
                left.pop(part, None)
    for name in [*left]:
        if name not in left:  # a part of the one before
            continue
        splits: list[str] = []
        while _is_splits(left.get(following := f"{name}_{len(splits) + 1}")):
            splits.append(following)
        if splits and (left[name].shape or ())[:1] == (None,):
            found.append(Ragged(name, tuple(splits)))
            for part in found[-1].parts:
                left.pop(part)
    return found + _named_ragged(left)


def _named_ragged(specs: Mapping[str, InputSpec]) -> list[Sparse | Ragged]:
    """Return the ragged tensors of which inputs are called splits; of several of one tensor the outermost is first."""
    called = [name for name, spec in specs.items() if _SPLITS in name.lower() and _is_splits(spec)]
    others = {n: spec.shape for n, spec in specs.items() if n not in called and (spec.shape or ())[:1] == (None,)}
    plain = {name: shape for name, shape in others.items() if shape == (None,)}
    splits: dict[str, list[str]] = {}
    for name in called:
        if values := _nearest(name, plain or others):
            splits.setdefault(values, []).append(name)
    return [Ragged(values, tuple(its)) for values, its in splits.items()]


def compose(
    specs: Mapping[str, InputSpec],
    found: Iterable[Sparse | Ragged],
    draw: Draw,
    rows: int,
    encodings: Mapping[str, Encoding],
) -> Request:
    """Return one made-up request of so many rows."""
    request: Request = {}
    for composite in found:
        request |= composite.fill(specs, draw, rows, encodings)
    for name, spec in specs.items():
        if name not in request:
            inner = [OPEN_WIDTH if size is None else size for size in (spec.shape or ())[1:]]
            request[name] = draw.values(numpy_type(spec.dtype), (rows, *inner), encodings.get(name))
    return request


def _columns(rank: int) -> tuple[tuple[int | None, ...], ...]:
    return (None, rank), (None, None)


def _is_splits(spec: InputSpec | None) -> bool:
    return spec is not None and spec.dtype in ("int32", "int64") and spec.shape == (None,)


def _nearest(name: str, others: Iterable[str]) -> str | None:
    """Return the first of the names that begin most like this one."""

    def shared(other: str) -> int:
        return next((i for i, (one, two) in enumerate(zip(name, other, strict=False)) if one != two), len(other))

    return max(others, key=shared, default=None)
