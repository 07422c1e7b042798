"""Real models with the signatures of tests/tiny_models: every output is twice the only input."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.tiny_models import Tensors, X, Y

from servegraph.savedmodel.layout import GOLDEN_FILE


def write_doubling_model(
    directory: Path,
    content: str = "1",
    inputs: Tensors = X,
    outputs: Tensors = Y,
    golden: Iterable[Mapping[str, Any]] = (),
) -> Path:
    """Write a SavedModel; `content` makes it differ from others that look the same, and twice the same is equal."""
    (name,) = inputs
    shapes = tuple((output, len(shape)) for output, (_, shape) in outputs.items())
    shutil.copytree(_saved(name, shapes), directory)
    (directory / "assets.extra").mkdir()
    (directory / "assets.extra" / "note.txt").write_text(content)
    lines = [json.dumps(request) for request in golden]
    if lines:
        (directory / GOLDEN_FILE).write_text("\n".join(lines) + "\n")
    return directory


@functools.cache
def _saved(name: str, outputs: tuple[tuple[str, int], ...]) -> Path:
    """Save a model once: TensorFlow writes other bytes each time."""
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name)])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: 2 * x if rank == 1 else tf.stack([2 * x] * 2, axis=1) for output, rank in outputs}

    module.serve = serve
    path = tempfile.mkdtemp(prefix="doubling-")
    tf.saved_model.save(module, path, signatures=serve)
    return Path(path)
