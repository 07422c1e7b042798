"""Lossless compression of what is stored, where it pays: a zlib stream that TensorFlow itself inflates on restoring."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from servegraph.rewriting.contents import Content, size_bytes
from servegraph.rewriting.forms import Form, Part, Shaped, add, enum, reshaped
from servegraph.rewriting.graph import Nodes
from servegraph.savedmodel.bundle_reader import BundleReader

LEAST_BYTES = 4096
# DecodeCompressed and DecodeRaw hold the tensor twice more while it is restored.
MOST_BYTES = 512_000_000
PAYS = 0.92  # of the size before; inflating takes time at every load
_LEVEL = 6
_SAMPLE_BYTES = 1 << 20
_GLANCE_BYTES = 1 << 16  # enough to foresee what may be worth trying
# What DecodeRaw reads, in every version of TensorFlow 2 (core/ops/parsing_ops.cc); bfloat16 came later.
_RAW = ("float16", "float32", "float64", "int32", "uint16", "uint8", "int16", "int8", "int64")


@dataclass(frozen=True, eq=False)
class Compressed:
    """The first part of another form (or the tensor as it is), deflated into one string."""

    inner: Form | None
    raw: Part
    deflated_bytes: int

    @property
    def name(self) -> str:
        """The inner form's name, and how it is compressed."""
        return f"{self.inner.name if self.inner else self.raw.dtype} in zlib"

    @property
    def noise(self) -> float:
        """That of the inner form."""
        return self.inner.noise if self.inner else 0.0

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The string, and the other parts of the inner form."""
        return (Part(":zlib", "string", ()), *(self.inner.parts[1:] if self.inner else ()))

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk of all parts."""
        return self.deflated_bytes + sum(part.size_bytes for part in self.parts[1:])

    def stored(self, content: Content, tensors: BundleReader | None) -> Iterable[Iterator[bytes]]:
        """Yield the bytes of each part; of a string, those of its only element."""
        streams = iter(_streams(self.inner, content, tensors))
        yield _deflated(next(streams))
        yield from streams

    def decode(self, nodes: Nodes, name: str, stored: list[str], content: Shaped) -> str:
        """Inflate, and turn back as the inner form does."""
        inflated = add(nodes, f"{name}/inflated", "DecodeCompressed", stored[0])
        inflated.attr["compression_type"].s = b"ZLIB"
        raw = add(nodes, f"{name}/raw", "DecodeRaw", inflated.name)
        raw.attr["out_type"].type, raw.attr["little_endian"].b = enum(self.raw.dtype), True
        first = reshaped(nodes, f"{name}/inflated_shape", raw.name, self.raw.shape, self.raw.dtype)
        return self.inner.decode(nodes, name, [first, *stored[1:]], content) if self.inner else first


def plan_compressed(content: Content, inner: Form | None, tensors: BundleReader | None) -> Compressed | None:
    """Compress what is stored of a tensor; None where that does not pay, judged by a sample before all of it."""
    raw, plain_bytes = _raw(content, inner)
    if not plain_bytes or _sampled(content, inner, tensors, _SAMPLE_BYTES) > PAYS:
        return None
    size = sum(map(len, _deflated(next(iter(_streams(inner, content, tensors))))))
    return Compressed(inner, raw, size) if size <= PAYS * plain_bytes else None


def expected_saving_bytes(content: Content, inner: Form | None, tensors: BundleReader | None) -> int:
    """Return about how much smaller a tensor gets by it, judged by its beginning alone."""
    _, plain_bytes = _raw(content, inner)
    ratio = _sampled(content, inner, tensors, _GLANCE_BYTES) if plain_bytes else 1.0
    return int((1 - ratio) * plain_bytes) if ratio <= PAYS else 0


def _raw(content: Content, inner: Form | None) -> tuple[Part, int]:
    """Return what would be deflated, and its bytes: 0 where that cannot be done, or does not pay."""
    raw = inner.parts[0] if inner else Part("", content.dtype, content.shape)
    plain_bytes = 0 if raw.dtype not in _RAW else raw.size_bytes if inner else size_bytes(content)
    return raw, plain_bytes if LEAST_BYTES <= plain_bytes <= MOST_BYTES else 0


def _sampled(content: Content, inner: Form | None, tensors: BundleReader | None, most_bytes: int) -> float:
    """Return what the beginning of a tensor becomes, as a share of its size."""
    sample = bytearray()
    for chunk in next(iter(_streams(inner, content, tensors))):
        sample += chunk
        if len(sample) >= most_bytes:
            break
    del sample[most_bytes:]
    return len(zlib.compress(sample, _LEVEL)) / len(sample)


def _streams(inner: Form | None, content: Content, tensors: BundleReader | None) -> Iterable[Iterator[bytes]]:
    return inner.stored(content, tensors) if inner else [content.chunks(tensors)]


def _deflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    deflater = zlib.compressobj(_LEVEL)
    for chunk in chunks:
        yield deflater.compress(chunk)
    yield deflater.flush()
