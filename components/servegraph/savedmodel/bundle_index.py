"""What `variables.index` says: a header, then one entry per tensor, and one per slice of a partitioned one.

Sources: tensorflow/core/protobuf/tensor_bundle.proto, util/saved_tensor_slice_util.cc (the key of a slice)
and lib/strings/ordered_code.cc (how that key is encoded so that bytes sort as numbers do).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import NamedTuple

from servegraph.savedmodel.dtypes import BY_NAME, dtype_name
from servegraph.savedmodel.sstable import read_table
from servegraph.savedmodel.wire import (
    Malformed,
    encode_bytes,
    encode_number,
    fields,
    read_varint,
    signed,
)

# Start and length along each dimension, in elements.
SliceSpec = tuple[tuple[int, int], ...]

MAX_RANK, MAX_ELEMENTS = 254, 2**63 - 1  # of a tensor: tensorflow/core/framework/tensor_shape.h
FULL_EXTENT = -1  # the stored length of a dimension that a slice takes whole
CRC_TAG = 6 << 3 | 5
_U32 = struct.Struct("<I")


class TensorEntry(NamedTuple):
    """One tensor of a checkpoint. A NamedTuple: a model has thousands, and they are made on every look.

    `crc32c` is masked, as stored (`sstable.mask`). A partitioned tensor has the `slices` it was cut into, the
    size of all of them together, and no place or checksum of its own: its pieces have those.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size_bytes: int
    crc32c: int
    slices: tuple[SliceSpec, ...] = ()


class BundleIndex(NamedTuple):
    """A whole index: `pieces` are the slices of each partitioned tensor, in the order of `entry.slices`."""

    shard_count: int
    is_big_endian: bool
    entries: Mapping[str, TensorEntry]
    pieces: Mapping[str, tuple[TensorEntry, ...]]


def parse_index(content: bytes) -> BundleIndex:
    """Read a whole `variables.index`. Raises `Malformed`."""
    table = read_table(content)
    key, header = next(table, (b"?", b""))
    if key:
        raise Malformed("the first entry is not the header")
    shard_count, is_big_endian = _parse_header(header)
    entries: dict[str, TensorEntry] = {}
    stored_pieces: dict[tuple[str, SliceSpec], TensorEntry] = {}
    shapes: dict[bytes, tuple[int, ...]] = {}
    for key, value in table:
        if key[:1] == b"\0":
            name, spec = _decode_slice_key(key)
            piece = _parse_entry(name, value, shapes)
            spec = _whole(spec, piece.shape)
            # The entry of a slice carries the shape of the slice; what it is a slice of is in its key.
            stored_pieces[name, spec] = piece._replace(slices=(spec,))
        else:
            name = key.decode("utf-8", "replace")
            entries[name] = _parse_entry(name, value, shapes)
    pieces = {}
    for name, entry in entries.items():
        if entry.slices:
            pieces[name] = _pieces_of(entry, stored_pieces)
    _require_apart([piece for name, entry in entries.items() for piece in pieces.get(name, (entry,))])
    for name, parts in pieces.items():
        entries[name] = entries[name]._replace(size_bytes=sum(part.size_bytes for part in parts))
    return BundleIndex(shard_count, is_big_endian, entries, pieces)


def _require_apart(pieces: list[TensorEntry]) -> None:
    """Raise `Malformed` where tensors share bytes and are not the same: for each of them all would be read again."""
    extents = {(piece.shard, piece.offset, piece.size_bytes, piece.crc32c) for piece in pieces if piece.size_bytes}
    for (shard, offset, size, _), (next_shard, next_offset, *_) in pairwise(sorted(extents)):
        if shard == next_shard and next_offset < offset + size:
            raise Malformed(f"two tensors share byte {next_offset} of data file {shard} and are not the same")


def _parse_header(value: bytes) -> tuple[int, bool]:
    shard_count, endianness = 0, 0
    for field in fields(value):
        if field.number == 1:
            shard_count = field.value
        elif field.number == 2:
            endianness = field.value
    if not 0 < shard_count <= 99_999:  # five digits in a shard's name
        raise Malformed(f"the header announces {shard_count} shards")
    return shard_count, endianness == 1


def _parse_entry(key: str, value: bytes, shapes: dict[bytes, tuple[int, ...]]) -> TensorEntry:
    """Read a BundleEntryProto. `shapes` remembers encoded shapes: thousands of tensors have a handful."""
    dtype = shard = offset = size = crc = position = 0
    shape: tuple[int, ...] = ()
    slices: list[SliceSpec] = []
    try:
        while position < len(value):
            tag = value[position]
            if tag == CRC_TAG:
                (crc,) = _U32.unpack_from(value, position + 1)
                position += 5
                continue
            number = value[position + 1]
            if number < 128:
                position += 2
            else:
                number, position = read_varint(value, position + 1)
            if tag == 0x28:
                size = number
            elif tag == 0x20:
                offset = number
            elif tag == 0x08:
                dtype = number
            elif tag == 0x12:
                payload = value[position : position + number]
                position += number
                known = shapes.get(payload)
                shape = shapes[payload] = _parse_shape(payload) if known is None else known
            elif tag == 0x18:
                shard = number
            elif tag == 0x3A:
                slices.append(_parse_slice(value[position : position + number]))
                position += number
            else:
                raise Malformed(f"the entry of {key!r} has the unknown tag {tag}")
    except (IndexError, struct.error):
        raise Malformed(f"the entry of {key!r} ends too early") from None
    if position != len(value):
        raise Malformed(f"the entry of {key!r} overruns its end")
    return TensorEntry(
        key, dtype_name(dtype), shape, shard, offset, size, crc, tuple(_whole(spec, shape) for spec in slices)
    )


def _parse_shape(payload: bytes) -> tuple[int, ...]:
    dimensions = []
    for field in fields(payload):
        if field.number == 2:
            size = 0
            for inner in fields(payload, field.start, field.end):
                if inner.number == 1:
                    size = signed(inner.value)
            dimensions.append(size)
    if len(dimensions) > MAX_RANK:
        raise Malformed(f"a stored tensor has {len(dimensions)} dimensions")
    if any(size < 0 for size in dimensions) or prod(dimensions) > MAX_ELEMENTS:
        raise Malformed(f"a stored tensor has the shape {dimensions}")
    return tuple(dimensions)


def _parse_slice(payload: bytes) -> SliceSpec:
    spec = []
    for field in fields(payload):
        start, length = 0, FULL_EXTENT
        for inner in fields(payload, field.start, field.end):
            if inner.number == 1:
                start = signed(inner.value)
            elif inner.number == 2:
                length = signed(inner.value)
        spec.append((start, length))
    return tuple(spec)


def _whole(spec: SliceSpec, shape: tuple[int, ...]) -> SliceSpec:
    """Replace the mark for "all of this dimension" by its size."""
    if len(spec) != len(shape):
        raise Malformed(f"a slice of {len(spec)} dimensions is kept for a tensor of shape {list(shape)}")
    return tuple(
        (0, size) if length == FULL_EXTENT else (start, length)
        for (start, length), size in zip(spec, shape, strict=True)
    )


def _pieces_of(entry: TensorEntry, stored: Mapping[tuple[str, SliceSpec], TensorEntry]) -> tuple[TensorEntry, ...]:
    pieces = []
    for spec in entry.slices:
        piece = stored.get((entry.key, spec))
        if piece is None:
            raise Malformed(f"{entry.key!r} has the slice {spec}, which no entry holds")
        if not _lies_within(spec, entry.shape):
            raise Malformed(f"{entry.key!r} of shape {list(entry.shape)} has the slice {spec} outside it")
        pieces.append(piece)
    if sum(prod(length for _, length in spec) for spec in entry.slices) != prod(entry.shape):
        raise Malformed(f"the slices of {entry.key!r} do not add up to its shape {list(entry.shape)}")
    return tuple(pieces)


def _lies_within(spec: SliceSpec, shape: tuple[int, ...]) -> bool:
    return all(0 <= start <= start + length <= size for (start, length), size in zip(spec, shape, strict=True))


def _decode_slice_key(key: bytes) -> tuple[str, SliceSpec]:
    """Read a slice's key in ordered code: 0, name, number of dimensions, start and length of each."""
    try:
        name, position = _decode_ordered_string(key, 1)
        width = key[position]
        rank = int.from_bytes(key[position + 1 : position + 1 + width], "big")
        position += 1 + width
        spec = []
        for _ in range(rank):
            start, position = _decode_ordered_number(key, position)
            length, position = _decode_ordered_number(key, position)
            spec.append((start, length))
    except IndexError:
        raise Malformed(f"the key {key[:80]!r} of a slice ends too early") from None
    return name.decode("utf-8", "replace"), tuple(spec)


def _decode_ordered_string(key: bytes, position: int) -> tuple[bytes, int]:
    """0 0xFF stands for 0, 0xFF 0 for 0xFF, 0 1 ends the string."""
    decoded = bytearray()
    while True:
        byte = key[position]
        position += 1
        if byte in (0, 255):
            escape = key[position]
            position += 1
            if byte == 0 and escape == 1:
                return bytes(decoded), position
        decoded.append(byte)


def _decode_ordered_number(key: bytes, position: int) -> tuple[int, int]:
    """A sign bit, then as many ones as further bytes (inverted when negative), then the number."""
    first = key[position]
    negative = first < 128
    head = (first << 8 | (key[position + 1] if position + 1 < len(key) else 0)) ^ (0xFFFF if negative else 0)
    width = 0
    while width < 10 and head & 0x8000 >> width:
        width += 1
    raw = key[position : position + width]
    if len(raw) < width:
        raise Malformed("a number in the key of a slice ends too early")
    number = int.from_bytes(raw, "big")
    payload_bits = 7 * width - 1  # `width` ones and a zero are not the number's
    low = number & (1 << payload_bits) - 1
    return (low - (1 << payload_bits) if negative else low), position + width


def encode_header(shard_count: int) -> bytes:
    """Return the BundleHeaderProto of a little-endian bundle of this format's version 1."""
    return encode_number(1, shard_count) + encode_bytes(3, encode_number(1, 1))


def encode_entry(entry: TensorEntry) -> bytes:
    """Return the BundleEntryProto of a tensor, or of a slice (whose own `slices` belong into its key)."""
    shape = b"".join(encode_bytes(2, encode_number(1, size) if size else b"") for size in entry.shape)
    encoded = encode_number(1, BY_NAME[entry.dtype].number) + encode_bytes(2, shape)
    for number, value in ((3, entry.shard), (4, entry.offset), (5, entry.size_bytes)):
        if value:
            encoded += encode_number(number, value)
    return encoded + (bytes([CRC_TAG]) + _U32.pack(entry.crc32c) if entry.crc32c else b"")


def encode_sliced_entry(entry: TensorEntry) -> bytes:
    """Return the BundleEntryProto of a partitioned tensor: its whole shape, and which slices it has."""
    encoded = encode_entry(entry._replace(shard=0, offset=0, size_bytes=0, crc32c=0))
    for spec in entry.slices:
        extents = ((encode_number(1, start) if start else b"") + encode_number(2, length) for start, length in spec)
        encoded += encode_bytes(7, b"".join(encode_bytes(1, extent) for extent in extents))
    return encoded


def encode_slice_key(name: str, spec: SliceSpec) -> bytes:
    """Return the key of a slice's entry."""
    key = b"\0" + name.encode().replace(b"\xff", b"\xff\0").replace(b"\0", b"\0\xff") + b"\0\1"
    rank = len(spec)
    key += bytes([1, rank]) if rank else b"\0"
    return key + b"".join(_encode_ordered_number(number) for extent in spec for number in extent)


def _encode_ordered_number(value: int) -> bytes:
    magnitude = ~value if value < 0 else value
    width = 1
    while magnitude >> (7 * width - 1):
        width += 1
    ones = ((1 << width) - 1) << (8 * width - width)
    word = magnitude | ones
    if value < 0:
        word ^= (1 << 8 * width) - 1
    return word.to_bytes(width, "big")
