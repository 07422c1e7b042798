"""The sorted table that `variables.index` is: blocks of prefix-compressed entries, an index block, a footer.

It is LevelDB's table format as TensorFlow has it in tsl/lib/io (table_builder.cc, block.cc, format.cc).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c

from servegraph.savedmodel.wire import Malformed, encode_varint, read_varint

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
TRAILER_BYTES = 5  # compression type and masked checksum behind each block
RAW, SNAPPY = 0, 1
BLOCK_BYTES = 262144  # TensorFlow's own size for new blocks (table_options.h)
RESTART_INTERVAL = 16  # every sixteenth key of a block is stored whole
# A snappy block announces its size: nothing in an index needs more, and a lie must not cost memory.
MAX_BLOCK_BYTES = 1 << 26
_U32 = struct.Struct("<I")


def mask(crc: int) -> int:
    """Return a checksum as it is stored: rotated and shifted, so that checksums of checksums differ."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of each entry in order, checking every block's checksum.

    Blocks follow each other, and the keys of one take no more than what `RESTART_INTERVAL` can save: a small file
    costs neither much time nor much memory.

    Raises:
        Malformed: the bytes are not a table.
    """
    if len(content) < FOOTER_BYTES:
        raise Malformed(f"{len(content)} bytes are too few for a table")
    footer = content[-FOOTER_BYTES:]
    if int.from_bytes(footer[-8:], "little") != MAGIC:
        raise Malformed("the last 8 bytes are not a table's: the file is cut short or is something else")
    try:
        _, position = _handle(footer, 0)  # the meta-index block, which TensorFlow leaves empty
        index_block, _ = _handle(footer, position)
        end = 0
        for _, value in _entries(_block(content, *index_block)):
            (offset, size), _ = _handle(value, 0)
            if offset < end:
                raise Malformed(f"the block at byte {offset} does not come after the one before, which ends at {end}")
            end = offset + size + TRAILER_BYTES
            yield from _entries(_block(content, offset, size))
    except (IndexError, struct.error):
        raise Malformed("a block ends inside an entry") from None


def _handle(buffer: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = read_varint(buffer, position)
    size, position = read_varint(buffer, position)
    return (offset, size), position


def _block(content: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + TRAILER_BYTES > len(content):
        raise Malformed(f"the block at byte {offset} ends at {end + TRAILER_BYTES}, past the file's {len(content)}")
    block = content[offset:end]
    (stored,) = _U32.unpack_from(content, end + 1)
    if mask(google_crc32c.value(content[offset : end + 1])) != stored:
        raise Malformed(f"the checksum of the block at byte {offset} does not match")
    compression = content[end]
    if compression == RAW:
        return block
    if compression == SNAPPY:
        return snappy_decompress(block)
    raise Malformed(f"the block at byte {offset} has the unknown compression {compression}")


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    (restarts,) = _U32.unpack_from(block, len(block) - 4)
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise Malformed("a block announces more restart points than it has bytes")
    position, key = 0, b""
    spare = RESTART_INTERVAL * len(block)  # keys of 16 entries that share what is stored once take no more
    while position < end:
        shared, fresh, value_length = block[position], block[position + 1], block[position + 2]
        if shared | fresh | value_length < 128:  # the common case, without three calls
            position += 3
        else:
            shared, position = read_varint(block, position)
            fresh, position = read_varint(block, position)
            value_length, position = read_varint(block, position)
        value = position + fresh
        if shared > len(key) or value + value_length > end:
            raise Malformed(f"the entry before byte {position} of a block overruns it")
        spare -= shared + fresh
        if spare < 0:
            raise Malformed(
                f"the keys of a block of {len(block)} bytes take more than {RESTART_INTERVAL} times as much"
            )
        key = key[:shared] + block[position:value]
        position = value + value_length
        yield key, block[value:position]


def snappy_decompress(block: bytes) -> bytes:
    """Return the content of a snappy block. Raises `Malformed`; IndexError where it ends too early.

    Source: https://github.com/google/snappy/blob/main/format_description.txt
    """
    length, position = read_varint(block, 0)
    if length > MAX_BLOCK_BYTES:
        raise Malformed(f"a compressed block claims {length} bytes")
    out = bytearray()
    while position < len(block):
        tag = block[position]
        position += 1
        kind = tag & 3
        if kind == 0:
            count = tag >> 2
            if count >= 60:
                width = count - 59
                count = int.from_bytes(block[position : position + width], "little")
                position += width
            count += 1
            out += block[position : position + count]
            position += count
        else:
            count, back, position = _snappy_copy(block, position, tag)
            if not 0 < back <= len(out):
                raise Malformed("a compressed block copies from before its start")
            for _ in range(count // back):
                out += out[-back:]
            start = len(out) - back
            out += out[start : start + count % back]
        if len(out) > length:
            break
    if len(out) != length:
        raise Malformed(f"a compressed block holds {len(out)} bytes and claims {length}")
    return bytes(out)


def _snappy_copy(block: bytes, position: int, tag: int) -> tuple[int, int, int]:
    if tag & 3 == 1:
        return (tag >> 2 & 7) + 4, tag >> 5 << 8 | block[position], position + 1
    width = 2 if tag & 3 == 2 else 4
    return (tag >> 2) + 1, int.from_bytes(block[position : position + width], "little"), position + width


def write_table(entries: Iterator[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Yield the parts of a table file; `entries` come sorted by key."""
    writer = _TableWriter()
    for key, value in entries:
        yield from writer.add(key, value)
    yield from writer.finish()


class _BlockBuilder:
    def __init__(self, restart_interval: int) -> None:
        self._interval = restart_interval
        self._content = bytearray()
        self._restarts = [0]
        self._since_restart = 0
        self.last_key = b""

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since_restart < self._interval:
            limit = min(len(self.last_key), len(key))
            while shared < limit and self.last_key[shared] == key[shared]:
                shared += 1
        else:
            self._restarts.append(len(self._content))
            self._since_restart = 0
        self._content += encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(len(value))
        self._content += key[shared:] + value
        self.last_key = key
        self._since_restart += 1

    @property
    def is_full(self) -> bool:
        return len(self._content) + 4 * len(self._restarts) + 4 >= BLOCK_BYTES

    @property
    def is_empty(self) -> bool:
        return not self._content

    def finish(self) -> bytes:
        tail = b"".join(map(_U32.pack, self._restarts)) + _U32.pack(len(self._restarts))
        return bytes(self._content) + tail


class _TableWriter:
    def __init__(self) -> None:
        self._offset = 0
        self._block = _BlockBuilder(RESTART_INTERVAL)
        self._index = _BlockBuilder(1)
        self._last_key = b""
        self._unindexed: bytes | None = None  # a block's handle, until the next key is known

    def add(self, key: bytes, value: bytes) -> Iterator[bytes]:
        if self._unindexed is not None:
            self._index.add(_between(self._last_key, key), self._unindexed)
            self._unindexed = None
        self._block.add(key, value)
        if self._block.is_full:
            yield self._flush()

    def finish(self) -> Iterator[bytes]:
        if not self._block.is_empty:
            yield self._flush()
        meta_index, meta_handle = self._seal(_BlockBuilder(RESTART_INTERVAL).finish())
        yield meta_index
        if self._unindexed is not None:
            self._index.add(_after(self._last_key), self._unindexed)
        index, index_handle = self._seal(self._index.finish())
        yield index
        yield (meta_handle + index_handle).ljust(FOOTER_BYTES - 8, b"\0") + MAGIC.to_bytes(8, "little")

    def _flush(self) -> bytes:
        self._last_key = self._block.last_key
        sealed, self._unindexed = self._seal(self._block.finish())
        self._block = _BlockBuilder(RESTART_INTERVAL)
        return sealed

    def _seal(self, block: bytes) -> tuple[bytes, bytes]:
        handle = encode_varint(self._offset) + encode_varint(len(block))
        typed = block + bytes([RAW])
        self._offset += len(typed) + 4
        return typed + _U32.pack(mask(google_crc32c.value(typed))), handle


def _between(key: bytes, next_key: bytes) -> bytes:
    """Return a short key that is not below `key` and below `next_key`, as TensorFlow picks it."""
    shared = 0
    while shared < min(len(key), len(next_key)) and key[shared] == next_key[shared]:
        shared += 1
    if shared < min(len(key), len(next_key)) and key[shared] < 255 and key[shared] + 1 < next_key[shared]:
        return key[:shared] + bytes([key[shared] + 1])
    return key


def _after(key: bytes) -> bytes:
    """Return a short key that is not below `key`, as TensorFlow picks it for the last block."""
    for position, byte in enumerate(key):
        if byte != 255:
            return key[:position] + bytes([byte + 1])
    return key
