"""Export whatever holds a model as a serving SavedModel, and prove what was written before anyone sees it.

What the source is is found out (`recognize`). A Keras model is written from its serving function; everything else is
first a SavedModel, as it is or made so, and then written again with what its signatures need (`reexport`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servegraph import storage
from servegraph.errors import InputError, StorageError
from servegraph.export_serving_graph import sources
from servegraph.export_serving_graph.recognize import Found, Kind, recognize
from servegraph.export_serving_graph.signature_choice import DEFAULT, Wanted
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.layout import content_digest

if TYPE_CHECKING:
    from servegraph.export_serving_graph.reexport import Proof


@dataclass(frozen=True)
class Exported:
    """What was written: bytes and digest of the whole directory, and the proof's largest difference.

    `inputs` and `outputs` are those of the main signature, `notes` what could not be proven or was left behind.
    """

    size_bytes: int
    digest: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_abs_diff: float
    proof_rows: int
    source_kind: Kind = "keras"
    signatures: tuple[str, ...] = (DEFAULT,)
    notes: tuple[str, ...] = ()


def export(
    source: Path | str,
    out: Path,
    *,
    schema_file: Path | None = None,
    samples: str | None = None,
    trust_code: bool = False,
    wanted: Wanted | None = None,
) -> Exported:
    """Export what `source` holds (see `recognize`) to the directory `out`, which appears only when proven.

    Raises:
        ModelError: the source cannot be loaded, or is nothing that can be exported.
        ExportRefused: `FIXED_BATCH`, `NO_INPUTS`, `NO_SIGNATURE`, `TRAINING_BAGGAGE`, `ANSWERS_DIFFER`, `NOT_PROVEN`,
            `NOT_UNDERSTOOD`, `UNTRACKED_RESOURCE`.
        InputError: `out` exists already (code `OUTPUT_EXISTS`), or it is not clear what is meant (`WHICH_SOURCE`,
            `WHICH_SIGNATURE`, `WHICH_TENSORS`, `WHICH_METAGRAPH`, `NO_SUCH_SIGNATURE`).
        StorageError: `out` cannot be written (code `CANNOT_WRITE`).
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already.", code="OUTPUT_EXISTS", fix="Give a new directory.")
    found = recognize(str(source))
    with _staging(out) as staging:
        written = staging / "model"
        proof = _write(found, written, staging / "source", wanted or Wanted(), (schema_file, samples, trust_code))
        exported = _described(written, proof, found.kind)
        if out.exists():
            out.rmdir()
        written.rename(out)
    return exported


def export_artifact(source: str, out: str, *, samples: str | None, trainer: str | None, trust_code: bool) -> Exported:
    """Export for a pipeline: import the trainer, so that its own layers are known, and replace a failed attempt.

    Raises: as `export`.
    """
    if trainer:
        from servegraph.trained.trainer import load_trainer

        load_trainer(trainer)
    shutil.rmtree(out, ignore_errors=True)  # a retried task finds what the failed attempt left
    return export(Path(source), Path(out), samples=samples, trust_code=trust_code)


def _write(
    found: Found, out: Path, between: Path, wanted: Wanted, options: tuple[Path | None, str | None, bool]
) -> Proof:
    """Write what was found to `out`; `between` is where a SavedModel with everything in it may stand before."""
    from servegraph.export_serving_graph import function_sources, reexport
    from servegraph.export_serving_graph.keras_model import write_keras

    schema_file, samples, trust_code = options
    if found.kind == "keras":
        source = sources.find(Path(found.path), schema_file)
        model = sources.load(source, trust_code=trust_code)
        return write_keras(model, out, sources.classes(source.schema), samples)
    if found.kind == "saved_model":
        between = sources.with_signatures(Path(found.path), between, wanted)
        if between != Path(found.path):  # the functions have been named signatures
            wanted = Wanted()
        return reexport.serving_only(between, out, wanted, samples)
    if found.kind == "tf1_checkpoint":
        from servegraph.export_serving_graph import tf1_checkpoint

        tf1_checkpoint.save(found.path, between, wanted)
        return reexport.serving_only(between, out, Wanted(), samples)
    import keras

    model = function_sources.build(found.path)
    if isinstance(model, keras.Model):
        return write_keras(model, out, sources.classes(sources.read_schema(schema_file)), samples)
    function_sources.save_module(model, between, wanted.signatures, found.path)
    return reexport.serving_only(between, out, Wanted(), samples)


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Yield a directory beside `out` that is gone afterwards; what the system refuses is a `StorageError`."""
    staging: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        yield staging
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


def _described(path: Path, proof: Proof, kind: Kind) -> Exported:
    directory = storage.open_dir(path)
    signatures = read_saved_model(directory).meta_graphs[0].signatures
    names = sorted(name for name in signatures if not name.startswith("__saved_model_"))
    main = signatures[DEFAULT if DEFAULT in names else names[0]]
    return Exported(
        size_bytes=sum(file.size_bytes for file in directory.files()),
        digest=content_digest(directory),
        inputs=tuple(main.inputs),
        outputs=tuple(main.outputs),
        max_abs_diff=proof.max_abs_diff,
        proof_rows=proof.rows,
        source_kind=kind,
        signatures=tuple(names),
        notes=proof.notes,
    )
