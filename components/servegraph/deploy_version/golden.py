"""Golden requests: requests with their recorded answers, stored inside the model.

The file `assets.extra/golden_requests.jsonl.gz` holds one JSON object a line, values as TF Serving's column
format has them (bytes as `{"b64": …}`):

    {"signature_name": "serving_default", "inputs": {"age": [39]}, "outputs": {"probabilities": [[0.9, 0.1]]}}

Of a large output some values stand for all: {"every": 97, "shape": [1, 256, 256], "values": [0.1, …]} has each 97th in
row-major order.

Those of a routine, which answers in place of the graph, are whole bodies, {"request": …, "response": …} a line.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servegraph.deploy_version.plan import Tolerance
from servegraph.errors import ModelError, StorageError
from servegraph.routine.manifest import GOLDEN as ROUTINE_GOLDEN
from servegraph.routine.manifest import Routine
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.storage import Directory

_GZIP = b"\x1f\x8b"
LARGEST_BYTES = 100_000_000
_SAMPLE = {"every", "shape", "values"}  # the keys of an output of which some values were recorded


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


def read_golden(directory: Directory, routine: Routine | None) -> tuple[GoldenRequest, ...]:
    """Return the golden requests of the model in `directory`, or those of its routine; empty where there are none.

    Raises:
        ModelError: the file cannot be used (code `BAD_GOLDEN_REQUESTS`).
        StorageError: it cannot be read.
    """
    path, parse = (GOLDEN_FILE, parse_golden) if routine is None else (ROUTINE_GOLDEN, parse_bodies)
    try:
        content = directory.read_bytes(path)
    except StorageError as exc:
        if exc.code in ("NOT_FOUND", "NOT_A_DIRECTORY"):
            return ()
        raise
    return parse(content)


def parse_bodies(content: bytes) -> tuple[GoldenRequest, ...]:
    """Return the requests of a routine's golden file.

    Raises:
        ModelError: a line is no such object (code `BAD_GOLDEN_REQUESTS`).
    """
    requests = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            entry = json.loads(line)
            requests.append(GoldenRequest(number, None, dict(entry["request"]), dict(entry["response"])))
        except (ValueError, KeyError, TypeError) as exc:
            raise ModelError(
                f"Line {number} of {ROUTINE_GOLDEN} is not a golden request: {exc!r}.",
                code="BAD_GOLDEN_REQUESTS",
                fix="Package the routine again with `servegraph package`.",
            ) from exc
    return tuple(requests)


def parse_golden(content: bytes) -> tuple[GoldenRequest, ...]:
    """Return the requests of a golden file, compressed or not; empty lines and those of other MetaGraphs are skipped.

    Raises:
        ModelError: a line is not such an object (code `BAD_GOLDEN_REQUESTS`).
    """
    requests = []
    for number, line in enumerate(_lines(content), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if "tags" in entry:
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
        except (ValueError, KeyError, TypeError) as exc:
            raise ModelError(
                f"Line {number} of {GOLDEN_FILE} is not a golden request: {exc!r}.",
                code="BAD_GOLDEN_REQUESTS",
                fix='A line is {"signature_name": …, "inputs": {name: column}, "outputs": {name: column}}.',
            ) from exc
    return tuple(requests)


def golden_of(content: bytes, tags: tuple[str, ...]) -> bytes:
    """Return a golden file as that of the MetaGraph with `tags` alone; that of {serve} where it has no lines.

    Raises:
        ModelError: it cannot be inflated (code `BAD_GOLDEN_REQUESTS`).
    """
    own, plain = [], []
    for line in _lines(content):
        try:
            entry = json.loads(line)
            its = entry.pop("tags", None)
        except (ValueError, AttributeError):  # whoever asks with it says so
            plain.append(line)
            continue
        if its is None:
            plain.append(line)
        elif set(its) == set(tags):
            own.append(json.dumps(entry, ensure_ascii=False, sort_keys=True).encode())
    return gzip.compress(b"".join(line + b"\n" for line in own or plain), mtime=0)


def _lines(content: bytes) -> list[bytes]:
    return (_inflated(content) if content.startswith(_GZIP) else content).splitlines()


def _inflated(content: bytes) -> bytes:
    """Inflate all members of a gzip file: each request may be one."""
    found = bytearray()
    while content:
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            found += inflater.decompress(content, LARGEST_BYTES - len(found) + 1)
        except zlib.error as exc:
            raise ModelError(f"{GOLDEN_FILE} cannot be inflated: {exc}.", code="BAD_GOLDEN_REQUESTS") from exc
        if not inflater.eof or len(found) > LARGEST_BYTES:
            message = f"{GOLDEN_FILE} is cut short, or inflates to more than {LARGEST_BYTES} bytes."
            raise ModelError(message, code="BAD_GOLDEN_REQUESTS")
        content = inflater.unused_data
    return bytes(found)


def difference(request: GoldenRequest, got: Mapping[str, Any], tolerance: Tolerance) -> str | None:
    """Return the first difference between recorded and received outputs, or None; more outputs are none."""
    tolerance = Tolerance(max(tolerance.abs, request.within), tolerance.rel)
    for name, value in request.outputs.items():
        if name not in got:
            return f"output {name!r}: not answered, only {', '.join(sorted(got)) or 'nothing'}"
        differs = _sample_difference if _is_sample(value) else _first_difference
        found = differs(value, got[name], tolerance, "")
        if found:
            return f"output {name!r}{found}"
    return None


def _is_sample(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == _SAMPLE


def _checked(value: Any) -> Any:
    """Return a recorded output. Raises ValueError where some values are to stand for all and cannot."""
    if _is_sample(value):
        count, every = math.prod(value["shape"]), value["every"]
        if every < 1 or len(value["values"]) != -(-count // every):
            raise ValueError(f"of {count} values each {every}th are not {len(value['values'])}")
    return value


def _sample_difference(want: Mapping[str, Any], got: Any, tolerance: Tolerance, at: str) -> str | None:
    """Compare where only some values were recorded, and the shape of all."""
    shape, every = want["shape"], want["every"]
    flat = [got]
    for size in shape:
        if any(not isinstance(part, list) or len(part) != size for part in flat):
            return f"{at}: expected the shape {shape}, got another"
        flat = [value for part in flat for value in part]
    for number, value in enumerate(want["values"]):
        index, place = number * every, ""
        for size in reversed(shape):
            index, rest = divmod(index, size)
            place = f"[{rest}]{place}"
        if found := _first_difference(value, flat[number * every], tolerance, f"{at}{place}"):
            return found
    return None


def _first_difference(want: Any, got: Any, tolerance: Tolerance, at: str) -> str | None:
    if isinstance(want, list) and isinstance(got, list):
        if len(want) != len(got):
            return f"{at}: expected {len(want)} elements, got {len(got)}"
        found = (
            _first_difference(one, other, tolerance, f"{at}[{index}]")
            for index, (one, other) in enumerate(zip(want, got, strict=True))
        )
        return next((text for text in found if text), None)
    if _is_object(want) and _is_object(got) and want.keys() == got.keys():
        found = (_first_difference(value, got[key], tolerance, f"{at}[{key!r}]") for key, value in want.items())
        return next((text for text in found if text), None)
    if _equal(want, got, tolerance):
        return None
    return f"{at}: expected {json.dumps(want)}, got {json.dumps(got)}"


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() != {"b64"}


def _equal(want: Any, got: Any, tolerance: Tolerance) -> bool:
    if isinstance(want, bool) or isinstance(got, bool) or want is None:
        return want is got
    if isinstance(want, int) and isinstance(got, int):
        return want == got
    if isinstance(want, (int, float)) and isinstance(got, (int, float)):
        if math.isnan(want) or math.isnan(got):
            return math.isnan(want) and math.isnan(got)
        return math.isclose(want, got, rel_tol=tolerance.rel, abs_tol=tolerance.abs)
    want_bytes, got_bytes = _as_bytes(want), _as_bytes(got)
    return want_bytes is not None and want_bytes == got_bytes


def _as_bytes(value: Any) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and value.keys() == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            return None
    return None
