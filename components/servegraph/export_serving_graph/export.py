"""Export a Keras model as a serving SavedModel, and prove what was written before anyone sees it.

Only what the serving function captures is stored: variables it reads and tables it looks things up in. Optimizer
slots, metrics and second copies of weights (Keras 3.15's own `export` stores each twice, keras-team/keras#23553) are
not left out afterwards; they never come in.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from servegraph import storage
from servegraph.answers import samples as sampling
from servegraph.answers.ask import Servable
from servegraph.answers.samples import InputSpec, Samples
from servegraph.errors import ExportRefused, InputError, StorageError
from servegraph.export_serving_graph import sources
from servegraph.export_serving_graph.signature import serving_function
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.layout import content_digest
from servegraph.savedmodel.reachability import training_baggage

if TYPE_CHECKING:
    import keras

SIGNATURE = "serving_default"
PROOF_BATCHES = (1, 2, 7)
# The graph is traced anew and fused differently from eager Keras; this is float32 rounding, far below any decision.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Exported:
    """What was written: bytes and digest of the whole directory, and the proof's largest difference."""

    size_bytes: int
    digest: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_abs_diff: float
    proof_rows: int


def export(
    source: Path,
    out: Path,
    *,
    schema_file: Path | None = None,
    samples: str | None = None,
    trust_code: bool = False,
) -> Exported:
    """Export what `source` holds (see `sources.find`) to the directory `out`, which appears only when proven.

    Raises:
        ModelError: the source cannot be loaded.
        ExportRefused: `FIXED_BATCH`, `NO_INPUTS`, `TRAINING_BAGGAGE`, `ANSWERS_DIFFER`, `UNTRACKED_RESOURCE`.
        InputError: `out` exists already (code `OUTPUT_EXISTS`).
        StorageError: `out` cannot be written (code `CANNOT_WRITE`).
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already.", code="OUTPUT_EXISTS", fix="Give a new directory.")
    found = sources.find(source, schema_file)
    model = sources.load(found, trust_code=trust_code)
    classes = found.schema.label_column.classes or () if found.schema else ()
    if found.schema and not found.schema.is_classification:
        classes = ()
    serve = serving_function(model, classes)
    staging: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        written = staging / "model"
        _save(model, serve, written)
        result = _prove(model, serve, written, samples)
        if out.exists():
            out.rmdir()
        written.rename(out)
    except OSError as exc:
        if isinstance(exc, StorageError):
            raise
        raise StorageError(
            f"The SavedModel cannot be written to {out}: {exc}.",
            code="CANNOT_WRITE",
            fix="Give a directory that can be written and has space left.",
        ) from exc
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return result


def export_artifact(source: str, out: str, *, samples: str | None, trainer: str | None, trust_code: bool) -> Exported:
    """Export for a pipeline: import the trainer, so that its own layers are known, and replace a failed attempt.

    Raises: as `export`.
    """
    if trainer:
        from servegraph.trained.trainer import load_trainer

        load_trainer(trainer)
    shutil.rmtree(out, ignore_errors=True)  # a retried task finds what the failed attempt left
    return export(Path(source), Path(out), samples=samples, trust_code=trust_code)


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
        tf.saved_model.save(servable, str(path), signatures={SIGNATURE: concrete})
    except tf.errors.OpError as exc:  # what TensorFlow's own file system raises for a full disk, a missing right
        raise OSError(exc.message) from exc
    except AssertionError as exc:  # what tf.saved_model.save raises for a resource that nothing tracks
        raise ExportRefused(
            f"The model uses a resource that belongs to none of its layers: {exc}",
            code="UNTRACKED_RESOURCE",
            fix="Keep the table or variable as an attribute of the layer that uses it.",
        ) from exc


def _prove(model: keras.Model, serve: Any, path: Path, samples: str | None) -> Exported:
    directory = storage.open_dir(path)
    baggage = training_baggage(directory)
    if baggage:
        raise ExportRefused(
            f"The exported graph holds what serving must not: {', '.join(f'{b.kind} {b.name}' for b in baggage[:5])}.",
            code="TRAINING_BAGGAGE",
            fix="Make the model's call(training=False) free of training operations.",
        )
    signature = read_saved_model(directory).meta_graphs[0].signatures[SIGNATURE]
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
    files = directory.files()
    return Exported(
        size_bytes=sum(file.size_bytes for file in files),
        digest=content_digest(directory),
        inputs=tuple(signature.inputs),
        outputs=tuple(signature.outputs),
        max_abs_diff=difference,
        proof_rows=rows,
    )


def _compare(serve: Any, servable: Servable, records: Samples) -> tuple[float, int]:
    """Return (largest difference, rows asked) between the model in memory and the one on disk."""
    import tensorflow as tf

    largest, rows = 0.0, 0
    for size in PROOF_BATCHES:
        batch = {name: np.resize(values, (size, *values.shape[1:])) for name, values in records.inputs.items()}
        expected = serve({name: tf.constant(values) for name, values in batch.items()})
        answered = servable(SIGNATURE, batch)
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
