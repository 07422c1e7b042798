"""How tensors of strings and of variants are stored: lengths, a checksum of them, the bytes.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.cc, WriteStringTensor and WriteVariantTensor.
"""

from __future__ import annotations

from math import prod

import google_crc32c

from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.sstable import mask
from servegraph.savedmodel.wire import Malformed, read_varint

_CHECKSUM_BYTES = 4


def split_strings(entry: TensorEntry, content: bytes) -> list[bytes]:
    """Take a string tensor apart into its elements.

    Raises:
        Malformed: the bytes are not one, or a checksum does not match.
    """
    if not content and not prod(entry.shape):
        return []
    if string_checksum(entry, content) != entry.crc32c:
        raise Malformed("the checksum of the strings does not match")
    lengths, start = _lengths(entry, content)
    values = []
    for length in lengths:
        values.append(content[start : start + length])
        start += length
    return values


def lengths_checksum(lengths: list[int]) -> int:
    """Return the checksum, not masked, that covers the lengths: four bytes each, eight for 4 GiB and more."""
    fixed = (length.to_bytes(4 if length < 1 << 32 else 8, "little") for length in lengths)
    return int(google_crc32c.value(b"".join(fixed)))


def string_checksum(entry: TensorEntry, content: bytes) -> int:
    """Return the masked checksum of a stored string tensor. Raises `Malformed`."""
    lengths, start = _lengths(entry, content)
    crc = lengths_checksum(lengths)
    if mask(crc).to_bytes(_CHECKSUM_BYTES, "little") != content[start - _CHECKSUM_BYTES : start]:
        raise Malformed("the checksum of the lengths does not match")
    return mask(google_crc32c.extend(crc, content[start - _CHECKSUM_BYTES :]))


def _lengths(entry: TensorEntry, content: bytes) -> tuple[list[int], int]:
    """Return the length of each element and where the first one starts."""
    count = prod(entry.shape)
    if count > len(content):  # each has a length of a byte at least: do not believe a huge shape
        raise Malformed(f"{count} strings in {len(content)} bytes")
    lengths, position = [], 0
    try:
        for _ in range(count):
            length, position = read_varint(content, position)
            lengths.append(length)
    except IndexError:
        raise Malformed("the lengths of the strings are cut short") from None
    start = position + _CHECKSUM_BYTES
    if start + sum(lengths) != len(content):
        raise Malformed("the lengths do not add up to the tensor's size")
    return lengths, start


def variant_checksum(entry: TensorEntry, content: bytes) -> int:
    """Return the masked checksum of a stored variant tensor. Raises `Malformed`.

    Each element is its length as a varint, its bytes, and a masked checksum over all so far.
    """
    crc = position = 0
    for _ in range(prod(entry.shape)):
        try:
            length, position = read_varint(content, position)
        except IndexError:
            raise Malformed("an element is cut short") from None
        if length > len(content) - position:
            raise Malformed(f"an element of {length} bytes ends behind the tensor")
        crc = google_crc32c.extend(crc, length.to_bytes(8, "little"))
        crc = google_crc32c.extend(crc, content[position : position + length])
        position += length
        stored = content[position : position + _CHECKSUM_BYTES]
        if mask(crc).to_bytes(_CHECKSUM_BYTES, "little") != stored:
            raise Malformed("the checksum of an element does not match")
        crc = google_crc32c.extend(crc, stored)
        position += _CHECKSUM_BYTES
    return mask(crc)
