"""Ask a serving SavedModel and the live one the same labelled records through their signatures, and judge."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from servegraph import storage
from servegraph.answers import metric, sample_lines
from servegraph.answers.ask import Servable
from servegraph.answers.samples import Samples, in_other_sizes, specs_of
from servegraph.errors import DataError, InputError, ModelError
from servegraph.evaluate.judge import Criteria, Evaluation, Measured, judge
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE, SERVING_TAG, Shape, Signature
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.storage.fetch import fetch_directory

BATCH = 64
TIMED_RECORDS = 200
WARM_UPS = 5

Answer = dict[str, NDArray[Any]]


class _Asked:
    """A model that has answered all records."""

    def __init__(self, path: Path, records: str, label: str, output: str | None) -> None:
        """Load it and ask. Raises `ModelError`, `DataError`."""
        self.name, signature, tags = _signature(path)
        specs = specs_of(signature)
        given = sample_lines.read(records, specs, label=label, signature=self.name)
        self._servable = _load(path, tags)
        self.samples, answers = self._ask(given, [tensor.shape for tensor in signature.outputs.values()])
        self.metric = metric.score(answers, self.samples.labels, output)
        self.size_bytes = sum(info.size_bytes for info in storage.open_dir(path).files())

    def _ask(self, given: Samples, outputs: list[Shape]) -> tuple[Samples, list[Answer]]:
        """Return the answers, and the records as the model takes them: some take one size of requests only."""
        try:
            return given, [self._servable(self.name, batch) for batch in given.batches(BATCH)]
        except ModelError:
            for resized in in_other_sizes([given], outputs):
                with contextlib.suppress(ModelError):
                    return resized, [self._servable(self.name, batch) for batch in resized.batches(BATCH)]
            raise

    def answer(self, record: Mapping[str, NDArray[Any]]) -> None:
        """Answer one record, for the clock."""
        self._servable(self.name, record)

    def measured(self, latency_ms: float) -> Measured:
        """Return what was measured of it."""
        return Measured(self.metric, self.size_bytes, latency_ms)


def evaluate(
    model: str,
    live: str,
    records: str,
    label: str,
    criteria: Criteria,
    measured_latency_ms: float = 0.0,
    *,
    noted_label: str = "",
) -> Evaluation:
    """Return the evaluation of the SavedModel at `model` against that at `live` (a path, gs://, or empty for none).

    `records` are JSON lines with the label under `label`, which is KEY or KEY=OUTPUT; where it is empty, under
    `noted_label`, which is a key as it stands. `measured_latency_ms` is what a server under the limits of its machine
    took for one, 0 where that was not measured.

    Raises:
        InputError: no label is named (code `NO_LABEL`).
        ModelError, DataError: the model itself cannot be loaded or does not take the records.
    """
    key, output = metric.label_and_output(label) if label else (noted_label, None)
    if not key:
        fix = "Give `label`: the key of the right answer in the records."
        raise InputError("Nothing says which key of the records is the label.", code="NO_LABEL", fix=fix)
    candidate = _Asked(Path(model), records, key, output)
    other: _Asked | None = None
    incomparable = ""
    with tempfile.TemporaryDirectory(prefix="servegraph-live-") as folder:
        if live:
            try:
                other = _Asked(fetch_directory(live, Path(folder)), records, key, output)
            except (ModelError, DataError) as error:
                incomparable = error.message
        if other is not None and other.metric.name != candidate.metric.name:
            incomparable = f"it has the metric {other.metric.name}, not {candidate.metric.name}."
            other = None
        both = [candidate] if other is None else [candidate, other]
        latencies = _latencies_ms(both)
    found = [asked.measured(latency) for asked, latency in zip(both, latencies, strict=True)]
    return judge(found[0], found[1] if len(found) > 1 else None, criteria, incomparable, measured_latency_ms)


def _signature(path: Path) -> tuple[str, Signature, tuple[str, ...]]:
    """Return the signature that stands for the model, and the tags of its MetaGraph.

    Raises:
        ModelError: it has no such signature, or several others (code `NO_SIGNATURE`).
    """
    graphs = read_saved_model(storage.open_dir(path)).meta_graphs
    plain = next((graph for graph in graphs if list(graph.tags) == [SERVING_TAG]), graphs[0])
    names = [name for name in plain.signatures if not name.startswith("__saved_model")]
    name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else names[0] if len(names) == 1 else None
    if name is None:
        raise ModelError(
            f"{path} has the signatures {names}, none of them {DEFAULT_SIGNATURE}.",
            code="NO_SIGNATURE",
            fix=f"Name one of them {DEFAULT_SIGNATURE} when the model is exported.",
        )
    return name, plain.signatures[name], tuple(plain.tags)


def _load(path: Path, tags: tuple[str, ...]) -> Servable:
    try:
        return Servable(path, tags=tags, loader="v2")
    except ModelError:
        return Servable(path, tags=tags, loader="session")


def _latencies_ms(models: Sequence[_Asked]) -> list[float]:
    """Return the median time of one record for each model, asked in turn so that both see the same machine."""
    records = [list(asked.samples.batches(1))[:TIMED_RECORDS] for asked in models]
    times: list[list[float]] = [[] for _ in models]
    for number in range(min(map(len, records)) if records else 0):
        for asked, own, taken in zip(models, records, times, strict=True):
            start = time.perf_counter()
            asked.answer(own[number])
            taken.append((time.perf_counter() - start) * 1000)
    return [statistics.median(taken[WARM_UPS:] or taken) if taken else 0.0 for taken in times]
