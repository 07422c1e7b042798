"""How far TensorFlow Serving's estimate of memory, 1.2 times the bytes on disk, is from what a server takes.

    python benchmarks/measure_memory.py MODEL… [--cpus 1] [--json FILE]

Each model is served in a child of its own and asked; the table has its size, the estimate, what the process took at the
most, and what is left of that without TensorFlow itself (a server of a model of a few bytes).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from servegraph.errors import ServegraphError
from servegraph.measure.limits import Limits
from servegraph.measure.measure import MeasureRequest, measure

ESTIMATE = 1.2
MB = 1e6


def tiny(directory: Path) -> Path:
    """Return a SavedModel of next to nothing."""
    import tensorflow as tf

    class Same(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x + 0.0}

    same = Same()
    tf.saved_model.save(same, str(directory), signatures=same.serve)
    return directory


def peak_bytes(model: Path, cpus: int) -> tuple[int, int]:
    found = measure(MeasureRequest(model, Limits(cpus), seconds=0.5, tune=False))
    return found.model_bytes, found.figures.peak_memory_bytes


def name_of(model: Path) -> str:
    """Return what tells a model from the others: its folder, and the one above where that is a version or "model"."""
    path = model.resolve()
    return path.parent.name if path.name == "model" or path.name.isdigit() else path.name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        _, empty_bytes = peak_bytes(tiny(Path(scratch, "tiny")), given.cpus)
    print(f"a server with next to no model: {empty_bytes / MB:.0f} MB")
    print(f"{'model':32}{'on disk':>10}{'1.2 x':>10}{'peak':>10}{'of model':>10}{'ratio':>8}")
    rows = []
    for model in given.models:
        try:
            size_bytes, peak = peak_bytes(model, given.cpus)
        except ServegraphError as exc:
            print(f"{name_of(model):32}{exc}")
            continue
        own = peak - empty_bytes
        rows.append({"model": name_of(model), "size_bytes": size_bytes, "peak_bytes": peak, "own_bytes": own})
        print(
            f"{name_of(model)[:31]:32}{size_bytes / MB:10.1f}{ESTIMATE * size_bytes / MB:10.1f}{peak / MB:10.1f}"
            f"{own / MB:10.1f}{own / size_bytes:8.2f}"
        )
    if given.json:
        given.json.write_text(json.dumps({"empty_bytes": empty_bytes, "models": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
