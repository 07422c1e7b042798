"""Large matrices stored in blocks of rows, each turned back into its place: that takes little more than the result.

TensorFlow's allocator keeps what restoring took at the most. Turning back a whole matrix needs what is stored of it
beside the result, and for int4 more than the result again; that a server of one large embedding table would hold for
good, unless a later variable fits into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import isqrt

from servegraph.rewriting.contents import Content, size_bytes
from servegraph.rewriting.forms import Form, Part, RowForm
from servegraph.rewriting.graph import Nodes
from servegraph.savedmodel.bundle_reader import BundleReader

LARGE_BYTES = 1 << 20  # of a tensor that is turned back by itself, one after the other
# Blocks cost memory as well, and time while a model is loaded.
_LEAST_EXCESS_BYTES = 16 << 20
_LEAST_EXCESS = 1 / 8  # of all that is turned back
_COST_BYTES = 200_000  # of each: what reads and turns it back, against two of its size that are needed at a time
_ROWS = 32  # a block has a multiple of as many: an int4 group


@dataclass(frozen=True)
class Rows:
    """Some rows of a matrix, as the form of them sees it."""

    start: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Blocks:
    """A matrix whose parts with rows are cut into blocks; others, such as scales per column, serve all of them."""

    inner: RowForm
    blocks: tuple[Rows, ...]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts in the order of the inner form's, where it is cut the blocks of one after the other."""
        return tuple(piece for part in self.inner.parts for piece in (self._pieces(part) if part.has_rows else [part]))

    def parts_of(self, number: int) -> list[Part]:
        """The parts that block `number` is turned back of, in the order of the inner form's."""
        return [self._pieces(part)[number] if part.has_rows else part for part in self.inner.parts]

    def stored(self, content: Content, tensors: BundleReader | None) -> Iterable[Iterator[bytes]]:
        """Yield the bytes of each part, to be taken in this order."""
        for part, chunks in zip(self.inner.parts, self.inner.stored(content, tensors), strict=True):
            yield from _cut(chunks, [piece.size_bytes for piece in self._pieces(part)]) if part.has_rows else [chunks]

    def decode_block(self, nodes: Nodes, name: str, stored: list[str], number: int) -> str:
        """Add nodes below `name` that turn a block back."""
        rows = self.blocks[number]
        return self.inner.of_rows(rows.start, rows.shape).decode(nodes, name, stored, rows)

    def _pieces(self, part: Part) -> list[Part]:
        starts = [self.inner.leading(rows.start, rows.shape[1]) for rows in self.blocks]
        ends = [*starts[1:], part.shape[0]]
        return [
            Part(f"{part.suffix}:{number:02d}", part.dtype, (end - start, *part.shape[1:]))
            for number, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]


def in_blocks(contents: Mapping[str, Content], forms: Mapping[str, Form], whole: set[str]) -> dict[str, Form | Blocks]:
    """Return the forms, those of matrices in blocks that would leave much memory behind; those in `whole` stay so.

    What is large is turned back one after the other, the largest first: what one leaves is there for the next.
    """
    sizes = {key: size_bytes(contents[key]) for key in forms if key in contents}
    order = sorted((key for key, size in sizes.items() if size >= LARGE_BYTES), key=lambda key: (-sizes[key], key))
    total = sum(sizes[key] for key in order)
    found: dict[str, Form | Blocks] = {**forms}
    for key, until in zip(order, accumulate(sizes[key] for key in order), strict=True):
        form, content = forms[key], contents[key]
        if key in whole or not isinstance(form, RowForm) or len(content.shape) != len(("rows", "columns")):
            continue
        excess = form.beside_bytes(content) - (total - until)
        if excess >= max(_LEAST_EXCESS_BYTES, _LEAST_EXCESS * total):
            found[key] = Blocks(form, tuple(_blocks(content)))
    return found


def _blocks(content: Content) -> Iterator[Rows]:
    rows, width = content.shape
    count = isqrt(size_bytes(content) // _COST_BYTES)  # the least memory for both
    step = -(-rows // count // _ROWS) * _ROWS
    for start in range(0, rows, step):
        yield Rows(start, content.dtype, (min(step, rows - start), width))


def _cut(chunks: Iterator[bytes], sizes: Iterable[int]) -> Iterator[Iterator[bytes]]:
    """Yield an iterator over the next bytes, as many as each size says; each is used up before the next."""
    rest = b""

    def take(size: int) -> Iterator[bytes]:
        nonlocal rest
        while size:
            rest = rest or next(chunks)
            taken, rest = rest[:size], rest[size:]
            size -= len(taken)
            yield taken

    for size in sizes:
        yield take(size)
