"""What a data file is, told by its first bytes; its name does not matter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeVar

from servegraph.errors import DataError, StorageError
from servegraph.savedmodel.tfrecord import is_tfrecord
from servegraph.storage import FileRef
from servegraph.storage.data_files import COMPRESSED

Format = Literal["csv", "tfrecord"]
Kind = TypeVar("Kind")

_HEAD_BYTES = 1 << 16
# First bytes, none of which UTF-8 text has.
_FOREIGN: Mapping[bytes, str] = {
    b"PAR1\x15": "a Parquet file",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"ARROW1\0\0": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"\x89HDF": "an HDF5 file",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_OPENED_JSON = re.compile(r'[\[{]\s*["\[{]')


def look(file: FileRef) -> tuple[FileRef, Format]:
    """Return the file, decompressed where its content says so, whatever its name does, and its format.

    A TFRecord may begin with any bytes, so it is told first, by the checksum in its header.

    Raises:
        DataError: it is something else that is known (code `WRONG_FORMAT`).
        StorageError: it cannot be read, or what is compressed is damaged (code `DAMAGED`).
    """
    try:
        with file.open_binary() as stream:
            head = stream.read(_HEAD_BYTES)
    except StorageError as error:
        if error.code != "DAMAGED" or not _is_misnamed(file):
            raise
        return look(replace(file, compression=None))
    if is_tfrecord(head):
        return file, "tfrecord"
    compression = _by_magic(head, COMPRESSED)
    if compression and file.compression is None:
        return look(replace(file, compression=compression))
    what = _by_magic(head, _FOREIGN) or ("JSON" if _is_json(head) else _wide_text(head))
    if what:
        raise DataError(
            f"{file.uri} is {what}, not CSV or TFRecord.",
            code="WRONG_FORMAT",
            fix="Write its records as CSV in UTF-8, or as TFRecord.",
        )
    return file, "csv"


def _is_misnamed(file: FileRef) -> bool:
    """Whether the stored bytes are not compressed in the way that the name says, but something else that is told here.

    A download that was decompressed on its way keeps its name.
    """
    with file.open() as stream:
        head = stream.read(_HEAD_BYTES)
    compression = _by_magic(head, COMPRESSED)
    return compression != file.compression if compression else is_tfrecord(head) or _is_text(head)


def _is_text(head: bytes) -> bool:
    """Whether there is no control character but white space; who reads it says in which line it is no UTF-8."""
    return not any(byte < 0x20 and byte not in b"\t\n\v\f\r" for byte in head)


def _by_magic(head: bytes, kinds: Mapping[bytes, Kind]) -> Kind | None:
    return next((kind for magic, kind in kinds.items() if head.startswith(magic)), None)


def _wide_text(head: bytes) -> str | None:
    """Return what the file is where it is UTF-16 or UTF-32 without a mark, of which UTF-8 makes text full of zeros.

    Delimiters, digits and line ends have a zero beside them there, in any language; in UTF-8 a zero is an accident.
    """
    return "text in UTF-16 or UTF-32" if head.count(0) * 16 > len(head) else None


def _is_json(head: bytes) -> bool:
    """Whether a JSON array or object stands there alone, as in JSON lines: in a cell something comes after it."""
    text = head.decode("utf-8-sig", "replace").lstrip()
    if not text.startswith(("[", "{")):
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):  # it goes on after the head
        return _OPENED_JSON.match(text) is not None
    return text[end : end + 1] in ("", "\r", "\n")
