"""The bytes that FORMAT.md states, against what the modules write and read."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import google_crc32c

import servegraph.savedmodel
from servegraph.savedmodel.bundle_index import (
    TensorEntry,
    _encode_ordered_number,
    encode_entry,
    encode_header,
    encode_slice_key,
)
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.bundle_writer import BundleWriter
from servegraph.savedmodel.layout import ROLES
from servegraph.savedmodel.sstable import mask, write_table
from servegraph.savedmodel.wire import encode_bytes, encode_number
from servegraph.storage import open_dir

DOCUMENT = Path(servegraph.savedmodel.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")


def stated(text: str) -> bytes:
    """The bytes in `text`, which the document must state in these very words."""
    assert f"`{text}`" in DOCUMENT
    return bytes.fromhex(text)


def test_fields() -> None:
    assert encode_number(1, 1) == stated("08 01")
    assert encode_bytes(2, b"serve") == stated("12 05 73 65 72 76 65")


def test_header_and_entry() -> None:
    assert encode_header(1) == stated("08 01 1a 02 08 01")
    entry = encode_entry(TensorEntry("a", "float32", (2,), 0, 0, 8, crc32c=0x01020304))
    assert entry == stated("08 01 12 04 12 02 08 02 28 08 35") + bytes.fromhex("04030201")


def test_table_footer() -> None:
    table = b"".join(write_table(iter([(b"", b"")])))
    assert table.endswith(stated("57 fb 80 8b 24 75 47 db"))


def test_masked_checksum_of_nothing() -> None:
    assert "`0xa282ead8`" in DOCUMENT
    assert mask(google_crc32c.value(b"")) == 0xA282EAD8


def test_ordered_code() -> None:
    stated_numbers = re.search(r"0 is `80`, 16 is `90`, 63 is `bf`, 64 is `c0 40`, -1 is `7f`", DOCUMENT)
    assert stated_numbers
    for number, encoded in ((0, "80"), (16, "90"), (63, "bf"), (64, "c040"), (-1, "7f")):
        assert _encode_ordered_number(number) == bytes.fromhex(encoded)


def test_slice_key() -> None:
    key = encode_slice_key("v", ((0, 16),))
    assert key == b"\0v" + stated("00 01") + b"\1\1" + stated("80") + stated("90")


def test_strings(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "variables/variables") as writer:
        entry = writer.add_strings("s", (2,), [b"hi", b""])
    lengths = struct.pack("<2I", 2, 0)
    stored_checksum = struct.pack("<I", mask(google_crc32c.value(lengths)))
    with BundleReader(open_dir(tmp_path)) as bundle:
        assert bundle.read(entry) == stated("02 00") + stored_checksum + stated("68 69")
    assert entry.crc32c == mask(google_crc32c.value(lengths + stored_checksum + b"hi"))


def test_every_kind_of_file_is_described() -> None:
    for role, pattern in ROLES:
        if not role.startswith("stray"):
            start = re.split(r"[(\\.]", pattern)[0]
            assert start in DOCUMENT, role
