"""The file of golden requests in a SavedModel, read without TensorFlow: requests with their recorded answers.

`assets.extra/golden_requests.jsonl.gz` holds one JSON object a line, values as TF Serving's column format has them
(bytes as `{"b64": …}`):

    {"signature_name": "serving_default", "inputs": {"age": [39]}, "outputs": {"probabilities": [[0.9, 0.1]]}}

Of a large output some values stand for all: {"every": 97, "shape": [1, 256, 256], "values": [0.1, …]} has each 97th in
row-major order. `servegraph.answers.golden` writes it.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from servegraph.errors import ModelError, in_short
from servegraph.savedmodel.layout import GOLDEN_FILE

LARGEST_BYTES = 100_000_000
_PIECE_BYTES = 4096  # given to the inflater at once: what it leaves of one is copied for each member
_FIX = "Copy the file whole again, or export the model again."
_GZIP = b"\x1f\x8b"
_NOT_A_REQUEST = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_PART = {"every", "shape", "values"}  # the keys of an output of which some values were recorded


@dataclass(frozen=True)
class GoldenRequest:
    """One request and the answer it must get; `line` is where it stands in the file.

    `signature_name` None: a routine is asked, `inputs` and `outputs` are the bodies of the request and of the answer.
    """

    line: int
    signature_name: str | None
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    within: float = 0.0  # how far a number may be from it whatever the tolerance

    @property
    def asked(self) -> str:
        """Return what is asked, in words."""
        return self.signature_name or "routine"


def parse_golden(content: bytes) -> tuple[GoldenRequest, ...]:
    """Return the requests of a golden file, compressed or not; empty lines and those of other MetaGraphs are skipped.

    Raises:
        ModelError: a line is not such an object (code `BAD_GOLDEN_REQUESTS`).
    """
    requests = []
    for number, line in _lines(content):
        try:
            entry = json.loads(line)
            if _tags_of(entry) is not None:
                continue
            requests.append(
                GoldenRequest(
                    number,
                    str(entry["signature_name"]),
                    dict(entry["inputs"]),
                    {name: _checked(value) for name, value in dict(entry["outputs"]).items()},
                    float(entry.get("within", 0)),
                )
            )
        except _NOT_A_REQUEST as exc:
            raise ModelError(
                f"Line {number} of {GOLDEN_FILE} is not a golden request: {in_short(exc)}.",
                code="BAD_GOLDEN_REQUESTS",
                fix='A line is {"signature_name": …, "inputs": {name: column}, "outputs": {name: column}}.',
            ) from exc
    return tuple(requests)


def golden_of(content: bytes, tags: tuple[str, ...]) -> bytes:
    """Return a golden file as that of the MetaGraph with `tags` alone; that of {serve} where it has no lines.

    Raises:
        ModelError: it cannot be inflated (code `BAD_GOLDEN_REQUESTS`).
    """
    own, plain = bytearray(), bytearray()
    for _, line in _lines(content):
        try:
            entry = json.loads(line)
            its = _tags_of(entry)
            if its == frozenset(tags):
                del entry["tags"]
                own += (json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n").encode()
        except _NOT_A_REQUEST:  # whoever asks with it says so
            its = None
        if its is None:
            plain += line + b"\n"
    return gzip.compress(own or plain, mtime=0)


def _tags_of(entry: Any) -> frozenset[str] | None:
    """Return the tags of the MetaGraph that a line is for, None for {serve}. Raises one of `_NOT_A_REQUEST`."""
    tags = entry.get("tags")
    if tags is None:
        return None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("its tags are no list of names")
    return frozenset(tags)


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, with their numbers."""
    for number, line in enumerate(io.BytesIO(_inflated(content) if content.startswith(_GZIP) else content), start=1):
        if stripped := line.strip():
            yield number, stripped


def _inflated(content: bytes) -> bytes:
    """Inflate all members of a gzip file: each request may be one."""
    found = bytearray()
    position = 0
    while position < len(content):
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        while not inflater.eof:
            piece = content[position : position + _PIECE_BYTES]
            try:
                found += inflater.decompress(piece, LARGEST_BYTES - len(found) + 1)
            except zlib.error as exc:
                raise ModelError(
                    f"{GOLDEN_FILE} cannot be inflated: {exc}.", code="BAD_GOLDEN_REQUESTS", fix=_FIX
                ) from exc
            if not piece or len(found) > LARGEST_BYTES:
                message = f"{GOLDEN_FILE} is cut short, or inflates to more than {LARGEST_BYTES} bytes."
                raise ModelError(message, code="BAD_GOLDEN_REQUESTS", fix=_FIX)
            position += len(piece)
        position -= len(inflater.unused_data)
    return bytes(found)


def is_part(value: Any) -> bool:
    """Whether some of an output's values stand for all of them."""
    return isinstance(value, dict) and value.keys() == _PART


def _checked(value: Any) -> Any:
    """Return a recorded output. Raises ValueError where some values are to stand for all and cannot."""
    if is_part(value):
        count, every = math.prod(value["shape"]), value["every"]
        if not isinstance(every, int) or every < 1 or len(value["values"]) != -(-count // every):
            raise ValueError(f"of {count} values each {every}th are not {len(value['values'])}")
    return value
