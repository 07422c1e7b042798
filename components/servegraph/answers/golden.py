"""Golden requests: sample requests with the answers a model gave, kept inside the model for whoever deploys it.

The file is `assets.extra/golden_requests.jsonl.gz` (TF Serving passes over what it does not know there), one JSON
object a line: {"signature_name": …, "inputs": {name: [values of the batch]}, "outputs": {name: [values of the batch]}}.
Of a model with several MetaGraphs those lines are of {serve}, which servers load; lines of another one have its "tags"
as well, and "within": how far its numbers are from those of {serve}, which is as close as another machine must come.
It is compressed, since the pixels of one image in JSON can be larger than a small model; where they still are, the
request repeats some of them (`in_brief`). Of an output of more than `WHOLE` values some stand for all, {"every": n,
"shape": [the dimensions], "values": [each n-th in row-major order]}. Bytes that are not UTF-8 stand as {"b64": …}, as
in TF Serving's REST API.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.ask import Arrays
from servegraph.answers.dtypes import is_float
from servegraph.answers.json_values import is_holdable, to_json
from servegraph.answers.samples import GOLDEN_ROWS, Samples
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.storage.local import answering

LARGEST_BYTES = 2_000_000
ALLOWANCE = 0.01  # of the model's own size, and no less than ALLOWANCE_BYTES; the first request is kept beyond it
WHOLE, _SOME = 4096, 256  # values of an output; a wrong answer, such as another image, is wrong nearly everywhere
ALLOWANCE_BYTES = 4096
_BRIEF = 256  # different values of an input
_LONG = 500_000  # characters of a line; a tenth more bytes for a fifth of the time is a bargain there
_MOST_A_BYTE = 2  # bytes that a byte of a number takes, written in JSON and compressed
_NO_ROOM = "the budget leaves no room for one"
_TOO_LARGE = f"one takes more than {LARGEST_BYTES // 1_000_000} MB"
_NOT_IN_JSON = "JSON holds neither NaN and infinity nor complex numbers, and no answer is without"
_NOTHING_FIXED = "nothing is answered that stays the same from call to call"


@dataclass(frozen=True)
class Recorded:
    """What was written: the lines of {serve}; outputs left out of some that were not finite; why there is no line.

    `crowded_out` is how many lines more there would be if the budget left room for them. `in_parts` are outputs that
    were left out because they are ragged or sparse: a model is asked for their parts, which no server answers.
    """

    lines: int
    not_finite: tuple[str, ...] = ()
    why_none: str = ""
    crowded_out: int = 0
    in_parts: tuple[str, ...] = ()


def write(
    model: Path,
    signature: str,
    samples: Samples,
    answers: Sequence[Arrays],
    model_bytes: int,
    free_bytes: int | None = None,
    others: Mapping[tuple[str, ...], Sequence[Arrays]] = MappingProxyType({}),
) -> Recorded:
    """Write the first `GOLDEN_ROWS` samples with the model's answers into `model`, return what was recorded.

    `answers` has one entry for each of `samples.requests()`. Requests that JSON cannot hold are left out, and of
    answers the outputs that are not finite; so is an answer of which nothing stays or that has complex numbers, which
    no server writes, and what would make the model grow by more than `ALLOWANCE`, or by more than the `free_bytes` of
    its budget. A file that is there already has the answers of another model and goes. `others` has the answers of
    further MetaGraphs of the model by their tags, whose lines are written beside, and not counted.

    Raises:
        StorageError: the file cannot be written.
    """
    path = model / GOLDEN_FILE
    with answering("write", path):
        path.unlink(missing_ok=True)
    free = LARGEST_BYTES if free_bytes is None else min(LARGEST_BYTES, free_bytes)
    allowance = _allowance(model_bytes)
    lines: list[bytes] = []
    left_out: set[str] = set()
    obstacles: dict[str, None] = {}  # in their order
    row_bytes = 0.0
    done = crowded_out = 0
    for number, (request, answer) in enumerate(zip(samples.requests(), answers, strict=True)):
        rows = max((len(values) for values in request.values() if values.ndim), default=1)
        done += rows if samples.is_batched else 1
        if done > GOLDEN_ROWS:
            break
        if row_bytes * rows > 2 * allowance:  # hopeless: it need not be written down first
            continue
        held = _held(answer) if all(map(is_holdable, request.values())) else {}
        if not held:
            obstacles[_NOT_IN_JSON if answer else _NOTHING_FIXED] = None
            continue
        line = _lines_of(signature, request, held, {tags: other[number] for tags, other in others.items()})
        row_bytes = len(line) / rows
        size = sum(map(len, lines)) + len(line)
        if size <= (min(allowance, free) if lines else free):
            lines.append(line)
            left_out |= answer.keys() - held.keys()
        else:
            obstacles[_TOO_LARGE if len(line) > LARGEST_BYTES else _NO_ROOM] = None
            crowded_out += free < size <= allowance
    if not lines:
        return Recorded(0, why_none="; ".join(obstacles))
    with answering("write", path):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"".join(lines))  # a gzip file may have several members, one after the other
    return Recorded(len(lines), tuple(sorted(left_out)), crowded_out=crowded_out)


def _lines_of(signature: str, request: Arrays, answer: Arrays, others: Mapping[tuple[str, ...], Arrays]) -> bytes:
    """Return the line of a request with its answer, and below it one for each further MetaGraph."""
    document = {"signature_name": signature, "inputs": _plain(request), "outputs": _sampled(answer)}
    line = _line(document)
    for tags, other in others.items():
        if its := {name: values for name, values in _held(other).items() if name in answer}:
            within = _largest_difference({name: answer[name] for name in its}, its)
            line += _line({**document, "outputs": _sampled(its), "tags": tags, "within": within})
    return line


def _held(answer: Arrays) -> Arrays:
    """Return the outputs that JSON holds; none where one is complex, for which a server refuses all of the answer."""
    if any(values.dtype.kind == "c" for values in answer.values()):
        return {}
    return {name: values for name, values in answer.items() if is_holdable(values)}


def _line(document: Mapping[str, Any]) -> bytes:
    return _compressed((json.dumps(document, ensure_ascii=False, sort_keys=True) + "\n").encode())


def _largest_difference(one: Arrays, other: Arrays) -> float:
    """Return how far the numbers of two answers are from each other."""
    numbers = [name for name, values in one.items() if is_float(values.dtype)]
    return max((float(np.max(np.abs(one[name] - other[name]), initial=0)) for name in numbers), default=0.0)


def _compressed(line: bytes) -> bytes:
    """Equal lines give equal bytes: the time is left out, so that a model's digest stays."""
    return gzip.compress(line, 9 if len(line) < _LONG else 4, mtime=0)


def in_brief(samples: Samples, answers: Sequence[Arrays], model_bytes: int) -> Samples | None:
    """Return a request of a few values of the first record, repeated, where the record is too large for the model.

    A wrong model answers that one wrongly as well, and it is deflated to a few kilobytes. It is a question of its own:
    the model must be asked. None where the first record is small enough, or its inputs have no more than `_BRIEF`
    values each.
    """
    first = next(iter(samples.batches(1)), {})
    allowance = _allowance(model_bytes)
    is_small = _MOST_A_BYTE * _bytes_of_numbers(first) <= allowance  # seen without writing it down
    if is_small or _first_bytes(first, answers) <= allowance:
        return None
    brief = {name: np.resize(_from_all_over(values, _BRIEF)[1], values.shape) for name, values in first.items()}
    if all(np.array_equal(values, brief[name]) for name, values in first.items()):
        return None
    return Samples(brief, 1, samples.generated, samples.is_batched)


def expected_bytes(samples: Samples, answers: Sequence[Arrays]) -> int:
    """Return about how large the file becomes, judged by the first record and its answer."""
    first = next(iter(samples.batches(1)), {})
    size = _first_bytes(first, answers)
    return size * min(samples.rows, GOLDEN_ROWS) + ALLOWANCE_BYTES if size else 0


def _first_bytes(first: Arrays, answers: Sequence[Arrays]) -> int:
    """Return about what the line of the first record takes; 0 where there is none."""
    whole = answers[0] if answers else {}
    answer = _held({name: values[:1] if values.ndim else values for name, values in whole.items()})
    if (whole and not answer) or not all(map(is_holdable, first.values())):
        return 0
    return len(_line({"inputs": _plain(first), "outputs": _sampled(answer)}))


def _bytes_of_numbers(arrays: Arrays) -> float:
    """Return what they take in memory, infinity for text."""
    return sum(math.inf if values.dtype == object else values.nbytes for values in arrays.values())


def _allowance(model_bytes: int) -> float:
    return max(ALLOWANCE_BYTES, ALLOWANCE * model_bytes)


def _sampled(arrays: Arrays) -> dict[str, Any]:
    return {name: _some(values) if values.size > WHOLE else to_json(values) for name, values in arrays.items()}


def _some(values: NDArray[Any]) -> dict[str, Any]:
    every, some = _from_all_over(values, _SOME)
    return {"every": every, "shape": list(values.shape), "values": to_json(some)}


def _from_all_over(values: NDArray[Any], number: int) -> tuple[int, NDArray[Any]]:
    """Return about `number` of the values (all if there are no more) and the step between them.

    A step without a common divisor with a dimension meets all of its indices.
    """
    every = max(values.size // number, 1)
    while math.gcd(every, values.size) > 1:
        every += 1
    return every, values.ravel()[::every]


def _plain(arrays: Arrays) -> dict[str, Any]:
    return {name: to_json(values) for name, values in arrays.items()}
