"""Hostile bundles of variables: indices and data that no library writes, below a sound graph."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from tests.bad_models.build import (
    Hostile,
    graph,
    node,
    placeholder,
    saved_model,
    write,
)

from servegraph.savedmodel.sstable import MAGIC, mask, write_table
from servegraph.savedmodel.wire import encode_bytes, encode_number, encode_varint


def index_file(content: bytes, data: bytes = b"") -> Callable[[Path], None]:
    """A sound graph with this index and data file."""

    def make(path: Path) -> None:
        write(path, saved_model(graph([placeholder(), node("y", "Identity", ("x",))])))
        (path / "variables").mkdir()
        (path / "variables/variables.index").write_bytes(content)
        (path / "variables/variables.data-00000-of-00001").write_bytes(data)

    return make


def index_of(header: bytes = b"", **entries: bytes) -> bytes:
    rows = [(b"", encode_number(1, 1) + header)] + [(key.encode(), value) for key, value in sorted(entries.items())]
    return b"".join(write_table(iter(rows)))


def tensor(dtype: int, sizes: list[int], offset: int = 0, size: int = 0) -> bytes:
    shape = b"".join(encode_bytes(2, encode_number(1, length)) for length in sizes)
    return encode_number(1, dtype) + encode_bytes(2, shape) + encode_number(4, offset) + encode_number(5, size)


def sealed(block: bytes, offset: int, compression: bytes = b"\x00") -> tuple[bytes, bytes]:
    """A block of a table with what follows it, and its handle."""
    import google_crc32c

    typed = block + compression
    return typed + struct.pack("<I", mask(google_crc32c.value(typed))), encode_varint(offset) + encode_varint(
        len(block)
    )


def footer(index_handle: bytes) -> bytes:
    return (index_handle + index_handle).ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def row(key: bytes, value: bytes = b"", shared: int = 0) -> bytes:
    return encode_varint(shared) + encode_varint(len(key)) + encode_varint(len(value)) + key + value


ONE_RESTART = struct.pack("<II", 0, 1)
HEADER_ROW = row(b"", encode_number(1, 1))


def snappy_bomb() -> bytes:
    """An index whose one block claims, compressed, to be 1 GB."""
    block, handle = sealed(encode_varint(1 << 30) + b"\xfe\x01\x00" * 1000, 0, b"\x01")
    return block + footer(handle)


def snappy_copies() -> bytes:
    """An index of a compressed block whose copies of a byte reach back 1 MB each."""
    literal = b"\xf8" + (1_000_000 - 1).to_bytes(3, "little") + bytes(1_000_000)
    copies = (b"\x03" + (1_000_000).to_bytes(4, "little")) * 40_000
    block, handle = sealed(encode_varint(1_040_000) + literal + copies, 0, b"\x01")
    return block + footer(handle)


def blocks_named(times: int, block: bytes) -> bytes:
    """An index of two blocks, the header's and one that is named so many times."""
    first, first_handle = sealed(HEADER_ROW + ONE_RESTART, 0)
    second, second_handle = sealed(block, len(first))
    rows = [row(b"z", handle) for handle in (first_handle, *[second_handle] * times)]
    index, index_handle = sealed(b"".join(rows) + ONE_RESTART, len(first + second))
    return first + second + index + footer(index_handle)


def repeating_keys() -> bytes:
    """Keys of 40 kB, each of which repeats the one before it."""
    rows = [row(b"a" * 40_000), *(row(b"%04x" % number, shared=40_000) for number in range(11_000))]
    return blocks_named(1, b"".join(rows) + ONE_RESTART)


def overlapping() -> tuple[bytes, bytes]:
    """An index of tensors that each begin a byte later and end at the same one, and their data."""
    size = 3_000_000
    tensors = {f"{n:05}": tensor(4, [size - n], offset=n, size=size - n) for n in range(20_000)}
    return index_of(**tensors), bytes(size)


def named_often() -> tuple[bytes, bytes]:
    """An index of very many names for the same damaged bytes, and those."""
    size = 3_000_000
    return index_of(**{f"{n:05}": tensor(4, [size], size=size) for n in range(20_000)}), bytes(size)


def variant_beyond() -> tuple[bytes, bytes]:
    """An index with a variant, and its one element, which claims 2^70 bytes."""
    content = b"\xff" * 9 + b"\x7f"
    return index_of(a=tensor(21, [1], size=len(content))), content


BUNDLES = (
    Hostile("a compressed block of 1 GB", index_file(snappy_bomb()), "INDEX_CORRUPT"),
    Hostile("a compressed block of far copies", index_file(snappy_copies()), "INDEX_CORRUPT"),
    Hostile(
        "one block again and again", index_file(blocks_named(1000, row(b"a") * 10_000 + ONE_RESTART)), "INDEX_CORRUPT"
    ),
    Hostile("keys that repeat 40 kB", index_file(repeating_keys()), "INDEX_CORRUPT"),
    Hostile("a tensor of 100,000 slices", index_file(index_of(a=b"\x3a\x00" * 100_000)), "INDEX_CORRUPT"),
    Hostile("an element of 2^70 bytes", index_file(*variant_beyond()), "CRC_MISMATCH"),
    Hostile("a tensor of 300 dimensions", index_file(index_of(a=tensor(1, [1 << 62] * 300, size=4))), "INDEX_CORRUPT"),
    Hostile("20,000 tensors in each other", index_file(*overlapping()), "INDEX_CORRUPT"),
    Hostile("20,000 names of one tensor", index_file(*named_often()), "CRC_MISMATCH"),
    Hostile("10^18 strings", index_file(index_of(a=tensor(7, [10**9, 10**9], size=3))), "TRUNCATED_SHARD"),
    Hostile("a tensor at 2^62", index_file(index_of(a=tensor(1, [1], offset=1 << 62, size=4))), "TRUNCATED_SHARD"),
    Hostile("a tensor of negative size", index_file(index_of(a=tensor(1, [-5], size=4))), "INDEX_CORRUPT"),
    Hostile("a type that does not exist", index_file(index_of(a=tensor(77, [1], size=4))), "TRUNCATED_SHARD"),
    Hostile(
        "99,999 data files",
        index_file(b"".join(write_table(iter([(b"", encode_number(1, 99_999))])))),
        "MISSING_SHARD",
    ),
)
