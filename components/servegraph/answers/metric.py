"""How well answers match labels: the accuracy of what a model decides, or the error of what it measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from servegraph.answers.dtypes import is_float, is_text
from servegraph.errors import DataError

DECISION_OUTPUT = "classes"  # what servegraph's exports and Estimators call the class that they decide for
HALF = 0.5
_FIX = "Name the output that the label belongs to: --label KEY=OUTPUT."
_FIX_NONE = (
    "A label needs an output with one answer a record: text, a whole number, or floats as [rows] or [rows, classes]. "
    "Leave --label out, and agreement with the original is what counts."
)

Answers = Mapping[str, NDArray[Any]]
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Metric:
    """A figure of a model on labelled samples, and the output that it was measured on."""

    name: Literal["accuracy", "mean_absolute_error"]
    value: float
    higher_is_better: bool
    output: str


@dataclass(frozen=True)
class _Measure:
    name: Literal["accuracy", "mean_absolute_error"]
    is_choice: bool  # whether the output itself is a class, not a score of one
    value: Callable[[], float]


def label_and_output(text: str) -> tuple[str, str | None]:
    """Split `KEY` or `KEY=OUTPUT`."""
    key, _, output = text.partition("=")
    return key, output or None


def drop(before: Metric, after: Metric) -> float:
    """Return the accuracy lost (0.005 is half a point), or by which part the error grew; negative if it is better."""
    if before.value == after.value:
        return 0.0
    if before.higher_is_better:
        return before.value - after.value
    if math.isinf(before.value):
        return -1.0
    return (after.value - before.value) / before.value if before.value else math.inf


def score(answers: Iterable[Answers], labels: Sequence[Any], output: str | None = None) -> Metric:
    """Return how well answers, batch by batch, match one label a record.

    Accuracy where an output decides between classes: text or whole numbers that equal the label (text is stripped;
    [batch, classes] text beside scores of the same shape: the text with the highest score), the largest of several
    floats for a whole-number label, one probability at one half for labels 0 and 1. Otherwise the mean absolute error
    of one float. Without `output`: the one named `classes` if it fits, the only text or whole number that does, or
    the only output that does.

    Raises:
        DataError: labels of mixed kinds or for no class, no output or several that they could belong to
            (code `BAD_LABELS`).
    """
    known = _known(labels)
    columns = _columns(list(answers), len(labels))
    if output is not None and output not in columns:
        raise DataError(
            f"There is no output {output!r} with one answer a record; the outputs are {_described(columns)}.",
            code="BAD_LABELS",
            fix=_FIX,
        )
    fitting = {
        name: measure for name in columns if (measure := _measure(columns, name, known)) and output in (None, name)
    }
    name = _chosen(fitting)
    if name is None:
        raise DataError(
            f"The labels, {known[0].item() if isinstance(known[0], np.generic) else known[0]!r} and so on, fit "
            f"{sorted(fitting) or 'none'} of the outputs {_described(columns)}; one is needed.",
            code="BAD_LABELS",
            fix=_FIX if fitting else _FIX_NONE,
        )
    chosen = fitting[name]
    return Metric(chosen.name, chosen.value(), chosen.name == "accuracy", name)


def _chosen(fitting: Mapping[str, _Measure]) -> str | None:
    choices = [name for name, measure in fitting.items() if measure.is_choice]
    if DECISION_OUTPUT in choices:
        return DECISION_OUTPUT
    return next((only[0] for only in (choices, list(fitting)) if len(only) == 1), None)


def _known(labels: Sequence[Any]) -> NDArray[Any]:
    """Return labels as an array of stripped text, of whole numbers, or of floats."""
    plain = [label[0] if isinstance(label, list) and len(label) == 1 else label for label in labels]
    if plain and all(isinstance(label, str) for label in plain):
        return np.array([label.strip() for label in plain], dtype=np.object_)
    if not plain or not all(isinstance(label, (int, float)) and math.isfinite(label) for label in plain):
        strange = next((label for label in plain if not isinstance(label, (str, int, float))), None)
        raise DataError(
            f"The labels are not all text or all finite numbers{'' if strange is None else f': {strange!r}'}.",
            code="BAD_LABELS",
            fix="Give one text or number a record.",
        )
    if all(float(label).is_integer() for label in plain):
        return np.array([int(label) for label in plain])
    return np.array(plain, dtype=np.float64)


def _columns(answers: Sequence[Answers], rows: int) -> dict[str, NDArray[Any]]:
    """Return the outputs with one answer a record, as [rows] or [rows, …]; floats as float64."""
    columns: dict[str, NDArray[Any]] = {}
    for name in answers[0] if answers else ():
        parts = [np.atleast_1d(answer[name]) for answer in answers]
        if len({part.shape[1:] for part in parts}) == 1 and sum(map(len, parts)) == rows:
            column = np.concatenate(parts)
            column = column.astype(np.float64) if is_float(column.dtype) else column
            columns[name] = column.reshape(rows) if column.size == rows else column
    return columns


def _measure(columns: Columns, name: str, labels: NDArray[Any]) -> _Measure | None:
    """Return how an output is measured against the labels, None where they cannot belong to it."""
    column = columns[name]
    if is_text(column.dtype):
        texts = _texts(columns, name)
        return texts if texts is None else _text_measure(texts, labels)
    if is_text(labels.dtype):
        return None
    is_whole = labels.dtype.kind == "i"
    if column.ndim == 1 and column.dtype.kind in "iub":
        return _accuracy(lambda: column == labels, is_choice=True) if is_whole else None
    if not is_float(column.dtype):
        return None
    if column.ndim == 1:
        if is_whole and set(labels.tolist()) <= {0, 1} and bool(((column >= 0) & (column <= 1)).all()):
            return _accuracy(lambda: (column >= HALF) == labels)
        return _Measure("mean_absolute_error", False, lambda: _mean_error(column, labels))
    if column.ndim == 2 and is_whole:
        return _accuracy(lambda: _top_1(name, column, labels))
    return None


def _texts(columns: Columns, name: str) -> NDArray[Any] | None:
    """Return one text a record: of several, as classification signatures answer, the one with the highest score."""
    column = columns[name]
    if column.ndim == 1:
        return column
    scores = [c for c in columns.values() if is_float(c.dtype) and c.shape == column.shape and c.ndim == 2]
    if len(scores) != 1:
        return None
    return np.asarray(column[np.arange(len(column)), scores[0].argmax(axis=1)])


def _text_measure(texts: NDArray[Any], labels: NDArray[Any]) -> _Measure | None:
    plain = [t.decode("utf-8", "replace").strip() if isinstance(t, bytes) else str(t).strip() for t in texts.tolist()]
    wanted = labels.tolist()
    if not is_text(labels.dtype):
        # An Estimator without a vocabulary answers the number of a class as text.
        if labels.dtype.kind != "i" or not all(text.isdecimal() for text in plain):
            return None
        wanted = [str(label) for label in wanted]
    return _accuracy(lambda: np.array([a == b for a, b in zip(plain, wanted, strict=True)]), is_choice=True)


def _accuracy(right: Callable[[], NDArray[Any]], *, is_choice: bool = False) -> _Measure:
    return _Measure("accuracy", is_choice, lambda: float(right().mean()))


def _top_1(name: str, column: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.bool_]:
    strange = labels[(labels < 0) | (labels >= column.shape[1])]
    if strange.size:
        raise DataError(
            f"The label {strange[0]} is no class of the output {name!r}, which has {column.shape[1]}, from 0.",
            code="BAD_LABELS",
            fix=_FIX,
        )
    right: NDArray[np.bool_] = (column.argmax(axis=1) == labels) & ~np.isnan(column).any(axis=1)
    return right


def _mean_error(column: NDArray[Any], labels: NDArray[Any]) -> float:
    if not np.isfinite(column).all():
        return math.inf
    return float(np.abs(column - labels).mean())


def _described(columns: Columns) -> str:
    kinds = {name: "float" if is_float(column.dtype) else column.dtype for name, column in columns.items()}
    return ", ".join(f"{name} ({kinds[name]} {list(c.shape)})" for name, c in sorted(columns.items())) or "none"
