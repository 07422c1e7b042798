"""Shorter forms of what fills tables: text joined and deflated, ids that only count not stored at all."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from servegraph.rewriting.contents import Content, Literal
from servegraph.rewriting.forms import Form, Part, Shaped, add, constant, enum
from servegraph.rewriting.graph import Nodes
from servegraph.savedmodel.bundle_reader import BundleReader

_LEVEL = 9  # a vocabulary is small, and inflated as fast whatever the level
_SEPARATORS = [bytes([number]) for number in (10, 0, *range(1, 10), *range(11, 32))]
_NODES_BYTES = 256  # of the operations that take a form apart


@dataclass(frozen=True)
class DeflatedText:
    """Strings [n] joined by a character that none of them has, in one zlib stream."""

    separator: bytes
    deflated: bytes
    name: str = "text in zlib"
    noise: float = 0.0
    parts: tuple[Part, ...] = (Part(":zlib", "string", (1,)),)

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk."""
        return len(self.deflated)

    def stored(self, _content: Content, _tensors: BundleReader | None) -> Iterable[Iterator[bytes]]:
        """Yield the stream."""
        yield iter([self.deflated])

    def decode(self, nodes: Nodes, name: str, stored: list[str], _content: Shaped) -> str:
        """Inflate and split."""
        inflated = add(nodes, f"{name}/inflated", "DecodeCompressed", stored[0])
        inflated.attr["compression_type"].s = b"ZLIB"
        separator = constant(nodes, f"{name}/separator", self.separator, "string")
        return f"{add(nodes, name, 'StringSplitV2', inflated.name, separator).name}:1"


@dataclass(frozen=True)
class Counted:
    """Integers [n] that count up by one from `start`, of which nothing is stored."""

    start: int
    name: str = "counted"
    noise: float = 0.0
    parts: tuple[Part, ...] = ()
    stored_bytes: int = 0

    def stored(self, _content: Content, _tensors: BundleReader | None) -> Iterable[Iterator[bytes]]:
        """Yield nothing."""
        return ()

    def decode(self, nodes: Nodes, name: str, _stored: list[str], content: Shaped) -> str:
        """Count."""
        ends = {"start": self.start, "limit": self.start + content.shape[0], "delta": 1}
        inputs = [constant(nodes, f"{name}/{end}", value, content.dtype) for end, value in ends.items()]
        add(nodes, name, "Range", *inputs).attr["Tidx"].type = enum(content.dtype)
        return name


def plan_table(content: Content) -> Form | None:
    """Return the shorter form of the keys or values that a table is restored from, None where there is none."""
    if not isinstance(content, Literal) or len(content.shape) != 1 or not content.shape[0]:
        return None
    values = content.values
    if content.dtype in ("int32", "int64"):
        start = int(values[0])
        return Counted(start) if (values == np.arange(start, start + len(values))).all() else None
    if content.dtype != "string":
        return None
    plain = b"".join(values)
    separator = next((each for each in _SEPARATORS if each not in plain), None)
    if separator is None:
        return None
    deflated = zlib.compress(separator.join(values), _LEVEL)
    return DeflatedText(separator, deflated) if len(deflated) + _NODES_BYTES < len(plain) + len(values) else None
