"""Golden requests of a version: read from the model, or from the routine that answers in place of its graph; compared.

Those of a routine are whole bodies, {"request": …, "response": …} a line.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

from servegraph.deploy_version.plan import Tolerance
from servegraph.errors import ModelError, StorageError, in_short
from servegraph.routine.manifest import GOLDEN as ROUTINE_GOLDEN
from servegraph.routine.manifest import Routine
from servegraph.savedmodel.golden_file import GoldenRequest, is_part, parse_golden
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.storage import Directory


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
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise ModelError(
                f"Line {number} of {ROUTINE_GOLDEN} is not a golden request: {in_short(exc)}.",
                code="BAD_GOLDEN_REQUESTS",
                fix="Package the routine again with `servegraph package`.",
            ) from exc
    return tuple(requests)


def difference(request: GoldenRequest, got: Mapping[str, Any], tolerance: Tolerance) -> str | None:
    """Return the first difference between recorded and received outputs, or None; more outputs are none."""
    tolerance = Tolerance(max(tolerance.abs, request.within), tolerance.rel)
    for name, value in request.outputs.items():
        if name not in got:
            return f"output {name!r}: not answered, only {', '.join(sorted(got)) or 'nothing'}"
        differs = _part_difference if is_part(value) else _first_difference
        found = differs(value, got[name], tolerance, "")
        if found:
            return f"output {name!r}{found}"
    return None


def _part_difference(want: Mapping[str, Any], got: Any, tolerance: Tolerance, at: str) -> str | None:
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
