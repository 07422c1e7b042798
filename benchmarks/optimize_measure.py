"""Asks models in the session loader, which TF Serving uses: python optimize_measure.py answers|latency|memory …

Every call is a fresh process and prints one JSON document:
    answers MODEL_FOLDER RESULT…            what each result answers, against the original
    latency MODEL_FOLDER SECONDS RESULT…    calls in random turn inside this process, at batch 1 and 32
    memory MODEL_FOLDER MODEL               load one model and ask it once
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

Arrays = dict[str, NDArray]
BATCHES = (1, 32)
LEAST_ROUNDS, MOST_ROUNDS = 5, 400
MADE_UP_ROWS = 32


class Served:
    """One signature of a SavedModel in a session."""

    def __init__(self, path: Path, signature: str) -> None:
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            definition = SavedModelLoader(str(path)).load(self._session, ["serve"]).signature_def[signature]
        self.inputs = {key: self._session.graph.get_tensor_by_name(i.name) for key, i in definition.inputs.items()}
        self.outputs = {key: info.name for key, info in definition.outputs.items()}

    def prepare(self, outputs: Sequence[str] | None = None) -> Callable[[Arrays], Arrays]:
        """Return the call, made once as a server does, that returns the named outputs or all."""
        names = list(outputs or self.outputs)
        fetch, feeds = [self.outputs[name] for name in names], list(self.inputs)
        call = self._session.make_callable(fetch, feed_list=[self.inputs[key].name for key in feeds])
        return lambda request: dict(zip(names, call(*(request[key] for key in feeds)), strict=True))

    def close(self) -> None:
        """Free the variables."""
        self._session.close()


def read_samples(folder: Path, served: Served) -> tuple[Arrays, list[Any]]:
    """Return the held-out records as arrays and their labels; made up, without labels, where there are none."""
    about = json.loads((folder / "about.json").read_text())
    file = folder / "samples.jsonl"
    if not file.exists():
        return {key: _made_up(tensor) for key, tensor in served.inputs.items()}, []
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    arrays = {
        key: np.array([row[key] for row in rows], object if t.dtype == tf.string else t.dtype.as_numpy_dtype)
        for key, t in served.inputs.items()
    }
    return arrays, [row[about["label"]] for row in rows]


def _made_up(tensor: tf.Tensor) -> NDArray:
    shape = [MADE_UP_ROWS, *tensor.shape[1:]]
    generator = np.random.default_rng(7)
    if tensor.dtype.is_integer:
        return generator.integers(0, 3, shape).astype(tensor.dtype.as_numpy_dtype)
    return generator.normal(size=shape).astype(tensor.dtype.as_numpy_dtype)


def _ask(served: Served, inputs: Arrays, batch: int = 32) -> Arrays:
    call, rows = served.prepare(), len(next(iter(inputs.values())))
    parts = [call({key: v[start : start + batch] for key, v in inputs.items()}) for start in range(0, rows, batch)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _decide(about: dict[str, Any], answers: Arrays) -> NDArray:
    values = answers[about["output"] or next(iter(answers))]
    return (values.mean(axis=1) if about["frames"] else values).argmax(axis=-1)


def _metric(about: dict[str, Any], answers: Arrays, labels: list[Any]) -> float | None:
    """Return the accuracy; labels are class numbers, or texts that the output `classes` gives."""
    if not labels:
        return None
    if isinstance(labels[0], str):
        decided = [text.decode() for text in answers["classes"].reshape(len(labels), -1)[:, 0]]
    else:
        decided = _decide(about, answers).tolist()
    return float(np.mean([have == want for have, want in zip(decided, labels, strict=True)]))


def answers(folder: Path, results: list[Path]) -> dict[str, Any]:
    """Compare the answers of each result with the original's."""
    about = json.loads((folder / "about.json").read_text())
    original = Served(folder / "model", about["signature"])
    inputs, labels = read_samples(folder, original)
    wanted = _ask(original, inputs)
    original.close()
    compared: dict[str, Any] = {"original": {"metric": _metric(about, wanted, labels), "rows": len(wanted)}}
    compared["original"]["rows"] = len(next(iter(wanted.values())))
    for path in results:
        served = Served(path, about["signature"])
        have = _ask(served, inputs)
        served.close()
        numbers = [key for key, value in wanted.items() if value.dtype.kind == "f"]
        compared[path.name] = {
            "metric": _metric(about, have, labels),
            "agreement": float(np.mean(_decide(about, have) == _decide(about, wanted))),
            "max_abs_diff": max(float(np.abs(have[key] - wanted[key]).max()) for key in numbers),
            "finite": all(bool(np.isfinite(have[key]).all()) for key in numbers),
        }
    return compared


def latency(folder: Path, seconds: float, results: list[Path]) -> dict[str, Any]:
    """Time the original, the original a second time (which shows the noise), and each result, in random turn."""
    about = json.loads((folder / "about.json").read_text())
    paths = {"original": folder / "model", "original again": folder / "model", **{path.name: path for path in results}}
    models = {name: Served(path, about["signature"]) for name, path in paths.items()}
    inputs, _ = read_samples(folder, models["original"])
    calls = {name: model.prepare() for name, model in models.items()}
    return {str(batch): time_calls(calls, _first_rows(inputs, batch), seconds) for batch in BATCHES}


def _first_rows(inputs: Arrays, batch: int) -> Arrays:
    return {key: np.resize(value, (batch, *value.shape[1:])) for key, value in inputs.items()}


def time_calls(calls: dict[str, Callable[[Any], Any]], request: Any, seconds: float) -> dict[str, list[float]]:
    """Return the milliseconds of every call by name; in each round all are called once, in a random order.

    Calls of less than a millisecond are made several times in a row, so that the clock and the turn count less.
    """
    repeats = 1
    for _ in range(3):
        started = time.perf_counter()
        for call in calls.values():
            call(request)
        took = time.perf_counter() - started
        repeats = max(1, min(20, int(0.002 * len(calls) / took)))
        if took > seconds / 4:  # once is enough to warm up what takes so long
            break
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, end = list(calls), time.monotonic() + seconds
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and time.monotonic() > end:
            break
        random.shuffle(order)
        for name in order:
            call = calls[name]
            started = time.perf_counter()
            for _ in range(repeats):
                call(request)
            times[name].append(1000 * (time.perf_counter() - started) / repeats)
    return times


def memory(folder: Path, model: Path) -> dict[str, float]:
    """Load one model and ask it once; memory is what it takes above TensorFlow itself, in MB.

    What the import has freed is given back first: else a small model hides in it.
    """
    about = json.loads((folder / "about.json").read_text())
    tf.compat.v1.Session(graph=tf.Graph()).close()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    request = None
    if (folder / "samples.jsonl").exists():
        with (folder / "samples.jsonl").open(encoding="utf-8") as file:
            request = json.loads(file.readline())
    before, before_file = _resident_mb()
    started = time.perf_counter()
    served = Served(model, about["signature"])
    loaded = time.perf_counter()
    rss_loaded = _resident_mb()[0] - before
    one = {key: np.array([request[key]]) if request else _made_up(t)[:1] for key, t in served.inputs.items()}
    one = {
        key: v.astype(object if t.dtype == tf.string else t.dtype.as_numpy_dtype)
        for (key, v), t in zip(one.items(), served.inputs.values(), strict=True)
    }
    asked = time.perf_counter()
    served.prepare()(one)
    first_s = time.perf_counter() - asked
    after, after_file = _resident_mb()
    return {
        "load_s": loaded - started,
        "first_s": first_s,
        "loaded_mb": rss_loaded,
        "asked_mb": after - before,
        "of_it_file_mb": after_file - before_file,
    }


def _resident_mb() -> tuple[float, float]:
    """Return what this process has in memory, and what of it are pages of files, such as TensorFlow's library."""
    _, resident, shared, *_ = (int(pages) for pages in Path("/proc/self/statm").read_text().split())
    page_mb = os.sysconf("SC_PAGE_SIZE") / 1e6
    return resident * page_mb, shared * page_mb


def main() -> None:
    """Do what the first argument says."""
    what, folder, *rest = sys.argv[1:]
    if what == "answers":
        found: Any = answers(Path(folder), [Path(path) for path in rest])
    elif what == "latency":
        found = latency(Path(folder), float(rest[0]), [Path(path) for path in rest[1:]])
    else:
        found = memory(Path(folder), Path(rest[0]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
