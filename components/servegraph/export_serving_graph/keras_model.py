"""A Keras model written as a serving SavedModel.

Only what the serving function captures is stored: variables it reads and tables it looks things up in. Optimizer
slots, metrics and second copies of weights (Keras 3.15's own `export` stores each twice, keras-team/keras#23553) are
not left out afterwards; they never come in.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from servegraph import storage
from servegraph.answers import samples as sampling
from servegraph.answers.ask import Servable
from servegraph.answers.samples import InputSpec, Samples
from servegraph.errors import ExportRefused
from servegraph.export_serving_graph.reexport import Proof, refuse_baggage
from servegraph.export_serving_graph.signature import serving_function
from servegraph.export_serving_graph.signature_choice import DEFAULT
from servegraph.savedmodel.graph_reader import read_saved_model

if TYPE_CHECKING:
    import keras

PROOF_BATCHES = (1, 2, 7)
# The graph is traced anew and fused differently from eager Keras; this is float32 rounding, far below any decision.
TOLERANCE = 1e-5


def write_keras(model: keras.Model, out: Path, classes: tuple[str, ...], samples: str | None) -> Proof:
    """Write `model` to the new directory `out`, and prove that it holds nothing of training and answers alike.

    Raises:
        ExportRefused: `FIXED_BATCH`, `NO_INPUTS`, `TRAINING_BAGGAGE`, `ANSWERS_DIFFER`, `UNTRACKED_RESOURCE`.
    """
    serve = serving_function(model, classes)
    _save(model, serve, out)
    return _prove(serve, out, samples)


def _save(model: keras.Model, serve: Any, path: Path) -> None:
    import tensorflow as tf

    concrete = serve.get_concrete_function()
    captured = {id(handle) for handle in concrete.graph.external_captures}
    servable = tf.Module()
    # In the model's own order: that of `concrete.variables` changes from run to run, and the digest with it.
    read = {id(variable) for variable in concrete.variables}
    own = [weight.value for weight in model.variables if id(weight.value) in read]
    servable.captured_variables = own + [v for v in concrete.variables if id(v) not in {id(w) for w in own}]
    servable.captured_resources = [
        item
        for item in tf.__internal__.tracking.ObjectGraphView(model).breadth_first_traversal()[0]
        if id(getattr(item, "resource_handle", None)) in captured and not isinstance(item, tf.Variable)
    ]
    try:
        tf.saved_model.save(servable, str(path), signatures={DEFAULT: concrete})
    except tf.errors.OpError as exc:  # what TensorFlow's own file system raises for a full disk, a missing right
        raise OSError(exc.message) from exc
    except AssertionError as exc:  # what tf.saved_model.save raises for a resource that nothing tracks
        raise ExportRefused(
            f"The model uses a resource that belongs to none of its layers: {exc}",
            code="UNTRACKED_RESOURCE",
            fix="Keep the table or variable as an attribute of the layer that uses it.",
        ) from exc


def _prove(serve: Any, path: Path, samples: str | None) -> Proof:
    refuse_baggage(path)
    signature = read_saved_model(storage.open_dir(path)).meta_graphs[0].signatures[DEFAULT]
    for side, tensors in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        fixed = [name for name, t in tensors.items() if t.shape is not None and (not t.shape or t.shape[0] is not None)]
        if fixed:
            raise ExportRefused(
                f"The {side} {fixed} have a fixed batch dimension.",
                code="FIXED_BATCH",
                fix="Make every output keep the outermost dimension of the inputs (R7).",
            )
    specs = {name: InputSpec(t.dtype, t.shape) for name, t in signature.inputs.items()}
    records = sampling.read(samples, specs, limit=64) if samples else sampling.generate(specs, rows=16)
    difference, rows = _compare(serve, Servable(path), records)
    return Proof(rows, difference, ())


def _compare(serve: Any, servable: Servable, records: Samples) -> tuple[float, int]:
    """Return (largest difference, rows asked) between the model in memory and the one on disk."""
    import tensorflow as tf

    largest, rows = 0.0, 0
    for size in PROOF_BATCHES:
        batch = {name: np.resize(values, (size, *values.shape[1:])) for name, values in records.inputs.items()}
        expected = serve({name: tf.constant(values) for name, values in batch.items()})
        answered = servable(DEFAULT, batch)
        rows += size
        for name, tensor in expected.items():
            want, have = tensor.numpy(), answered[name]
            if want.dtype.kind != "f":
                difference = 0.0 if np.array_equal(want, have) else float("inf")
            else:
                difference = float(np.max(np.abs(want - have), initial=0.0)) if want.shape == have.shape else np.inf
            if not difference <= TOLERANCE and not np.array_equal(want, have, equal_nan=want.dtype.kind == "f"):
                raise ExportRefused(
                    f"At batch size {size} the output {name!r} of the SavedModel differs from the model in memory by "
                    f"{difference:g}.",
                    code="ANSWERS_DIFFER",
                    fix="Report this model: an export must not change its answers.",
                )
            largest = max(largest, difference)
    return largest, rows
