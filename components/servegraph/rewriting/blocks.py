"""Large matrices stored in blocks of rows, each turned back into its place: that takes little more than the result.

TensorFlow's allocator gives nothing back. Turning back a whole matrix needs what is stored of it beside the result, and
for int4 more than the result again; that a server would hold for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from servegraph.rewriting.contents import Content, size_bytes
from servegraph.rewriting.forms import Form, Part, RowForm
from servegraph.rewriting.graph import Nodes
from servegraph.savedmodel.bundle_reader import BundleReader

LARGE_BYTES = 1 << 20  # of a tensor that is turned back by itself, one after the other
# A loop takes 2 MB itself, and time while a model is loaded: it is for what takes more beside the result, which
# counts in all that a server holds.
_LEAST_BYTES = 4 << 20
_LEAST_PART = 32
_RANK = len(("rows", "columns"))
_BLOCK_BYTES = 512 << 10
_MOST_BLOCKS = 1000  # about: the index names them all, and a look into it is needed for each
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
        return tuple(piece for part in self.inner.parts for piece in (self._pieces[part] if part.has_rows else [part]))

    def own_parts(self, number: int) -> list[Part]:
        """The parts of block `number` alone."""
        return [self._pieces[part][number] for part in self.inner.parts if part.has_rows]

    def stored(self, content: Content, tensors: BundleReader | None) -> Iterable[Iterator[bytes]]:
        """Yield the bytes of each part, to be taken in this order."""
        for part, chunks in zip(self.inner.parts, self.inner.stored(content, tensors), strict=True):
            yield from _cut(chunks, [piece.size_bytes for piece in self._pieces[part]]) if part.has_rows else [chunks]

    def decode_block(self, nodes: Nodes, name: str, stored: list[str], number: int) -> str:
        """Add nodes below `name` that turn a block back."""
        rows = self.blocks[number]
        return self.inner.of_rows(rows.start, rows.shape).decode(nodes, name, stored, rows)

    @cached_property
    def _pieces(self) -> dict[Part, list[Part]]:
        starts = [self.inner.leading(rows.start, rows.shape[1]) for rows in self.blocks]
        return {
            part: [
                Part(f"{part.suffix}:{number:03d}", part.dtype, (end - start, *part.shape[1:]))
                for number, (start, end) in enumerate(zip(starts, [*starts[1:], part.shape[0]], strict=True))
            ]
            for part in self.inner.parts
            if part.has_rows
        }


def in_blocks(
    contents: Mapping[str, Content], forms: Mapping[str, Form], whole: set[str], held_bytes: int
) -> dict[str, Form | Blocks]:
    """Return the forms, those of matrices in blocks that would leave much memory behind; those in `whole` stay so.

    `held_bytes` is what the model held that these are tensors of: where it held twice as much, there is room enough.
    """
    total = sum(size_bytes(content) for content in contents.values() if content.dtype != "string")
    least = max(_LEAST_BYTES, total // _LEAST_PART) + max(held_bytes - total, 0)
    found: dict[str, Form | Blocks] = {**forms}
    for key, form in forms.items():
        content = contents.get(key)
        if content is None or key in whole or not isinstance(form, RowForm) or len(content.shape) != _RANK:
            continue
        blocks = tuple(_blocks(content)) if form.beside_bytes(content) >= least else ()
        if len(blocks) > 1:
            found[key] = Blocks(form, blocks)
    return found


def _blocks(content: Content) -> Iterator[Rows]:
    """Yield blocks of equal size, and last one that is up to twice as large."""
    rows, width = content.shape
    least = max(_BLOCK_BYTES, size_bytes(content) // _MOST_BLOCKS)
    step = max(rows * least // (size_bytes(content) * _ROWS), 1) * _ROWS
    last = max(rows // step - 1, 0) * step
    for start in range(0, last, step):
        yield Rows(start, content.dtype, (step, width))
    yield Rows(last, content.dtype, (rows - last, width))


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
