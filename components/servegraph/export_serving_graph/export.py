"""Export whatever holds a model as a serving SavedModel, and prove what was written before anyone sees it.

What the source is is found out (`recognize`). A Keras model is written from its serving function; everything else is
first a SavedModel, as it is or made so, and then written again with what its signatures need (`reexport`).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servegraph import storage
from servegraph.errors import InputError, ModelError
from servegraph.estimator import estimator_function
from servegraph.export_serving_graph import sources
from servegraph.export_serving_graph.recognize import Found, Kind, recognize
from servegraph.export_serving_graph.signature_choice import Requests, Wanted, precision
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE, Signature
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.layout import content_digest
from servegraph.storage.data_files import require_match
from servegraph.storage.local_paths import require_loadable_path
from servegraph.storage.staging import work_directory, writing

if TYPE_CHECKING:
    from servegraph.export_serving_graph.proof import Proof


@dataclass(frozen=True)
class Exported:
    """What was written: bytes and digest of the whole directory, and the proof's largest difference.

    `inputs` and `outputs` are those of the main signature, `notes` what could not be proven or was left behind,
    `tag_sets` the tags of each MetaGraph.
    """

    size_bytes: int
    digest: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_abs_diff: float
    proof_rows: int
    source_kind: Kind = "keras"
    signatures: tuple[str, ...] = (DEFAULT_SIGNATURE,)
    notes: tuple[str, ...] = ()
    warmup_requests: int = 0
    tag_sets: tuple[tuple[str, ...], ...] = (("serve",),)


def export(
    source: Path | str,
    out: Path,
    *,
    schema_file: Path | None = None,
    samples: str | None = None,
    trust_code: bool = False,
    wanted: Wanted | None = None,
    requests: Requests | None = None,
) -> Exported:
    """Export what `source` holds (see `recognize`) to the directory `out`, which appears only when proven.

    Raises:
        ModelError: the source cannot be loaded, or is nothing that can be exported.
        ExportRefused: `FIXED_BATCH`, `NO_INPUTS`, `NO_SIGNATURE`, `TRAINING_BAGGAGE`, `ANSWERS_DIFFER`, `NOT_PROVEN`,
            `NOT_UNDERSTOOD`, `UNTRACKED_RESOURCE`, `NO_PROBABILITIES`, `NOTHING_FOR_GPU`, `PRECISION_TOO_LOW`,
            `METHOD_DOES_NOT_FIT`.
        DataError: the warmup requests are too many, too large, or not answered.
        InputError: `out` exists already (code `OUTPUT_EXISTS`), TensorFlow could load no model from there or from the
            source (`UNLOADABLE_PATH`), or it is not clear what is meant (`WHICH_SOURCE`,
            `WHICH_SIGNATURE`, `WHICH_TENSORS`, `WHICH_METAGRAPH`, `NO_SUCH_SIGNATURE`, `NO_METAGRAPHS`,
            `NO_SCHEMA_NEEDED`), or names do not fit (see `interface`).
        StorageError: `out` cannot be written (code `CANNOT_WRITE`), or there are no samples or warmup requests
            (`NOT_FOUND`).
    """
    require_loadable_path(out, "OUT")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already.", code="OUTPUT_EXISTS", fix="Give a new directory.")
    requests = requests or Requests()
    require_match(samples, requests.warmup)
    is_estimator = bool(requests.serving_input_fn or (requests.trainer and estimator_function(requests.trainer)))
    found = recognize(str(source), is_estimator=is_estimator)
    if found.kind not in ("keras", "python"):  # what Keras loads itself is no pattern
        require_loadable_path(Path(found.path), "SOURCE")
    wanted = wanted or Wanted()
    _require_fitting(found, wanted, schema_file)
    options = _Options(schema_file, samples, trust_code, requests)
    with writing(out), work_directory(out) as staging:
        written = staging / "model"
        proof = _write(found, written, staging / "source", wanted, options)
        if wanted.names:
            from servegraph.export_serving_graph.renaming import rename

            proof = _also(proof, rename(written, staging / "named", wanted.names, samples))
            written = staging / "named"
        if wanted.gpu_graph:
            from servegraph.export_serving_graph.gpu_meta_graph import add_gpu_graph

            proof = _also(proof, add_gpu_graph(written, staging / "both", wanted.gpu_graph, samples))
            written = staging / "both"
        count = _warm_up(written, requests.warmup) if requests.warmup else 0
        exported = _described(written, proof, found.kind, count)
        if out.exists():
            out.rmdir()
        written.rename(out)
    return exported


def export_artifact(
    source: str, out: str, *, samples: str | None, trainer: str | None, trust_code: bool, gpu_graph: str = ""
) -> Exported:
    """Export for a pipeline: import the trainer, so that its own layers are known, and replace a failed attempt.

    Raises: as `export`.
    """
    if trainer and not estimator_function(trainer):
        from servegraph.trained.trainer import import_source

        import_source(trainer)
    shutil.rmtree(out, ignore_errors=True)  # a retried task finds what the failed attempt left
    requests = Requests(trainer=trainer)
    wanted = Wanted(gpu_graph=precision(gpu_graph))
    return export(Path(source), Path(out), samples=samples, trust_code=trust_code, wanted=wanted, requests=requests)


def _require_fitting(found: Found, wanted: Wanted, schema_file: Path | None) -> None:
    """Raise `InputError` (`NO_METAGRAPHS`, `NO_SCHEMA_NEEDED`) where an option says nothing of such a source."""
    if wanted.tags and found.kind != "saved_model":
        raise InputError(
            f"{found.path} is no SavedModel, so there are no MetaGraphs to choose from by tags.",
            code="NO_METAGRAPHS",
            fix="Leave out --tags; --write-tags names those of the export.",
        )
    if schema_file is not None and found.kind in ("saved_model", "tf1_checkpoint"):
        raise InputError(
            f"{found.path} has its inputs and outputs already; a schema is for Keras models, Estimators and functions.",
            code="NO_SCHEMA_NEEDED",
            fix="Leave --schema out; --rename-input and --rename-output change names.",
        )


@dataclass(frozen=True)
class _Options:
    schema_file: Path | None
    samples: str | None
    trust_code: bool
    requests: Requests


def _write(found: Found, out: Path, between: Path, wanted: Wanted, options: _Options) -> Proof:
    """Write what was found to `out`; `between` is where a SavedModel with everything in it may stand before."""
    from servegraph.estimator.call import call
    from servegraph.export_serving_graph import function_sources, reexport
    from servegraph.export_serving_graph.keras_model import write_keras

    model: Any = None
    schema = None
    if found.kind == "keras":
        source = sources.find(Path(found.path), options.schema_file)
        schema = source.schema
        try:
            model = sources.load(source, trust_code=options.trust_code)
        except ModelError as exc:
            if exc.code not in ("KERAS_FILE_DAMAGED", "OTHER_KERAS") or not sources.may_be_keras_2(source.file):
                raise
            # Keras 3 does not read every file of Keras 2 again, such as one with DepthwiseConv2D.
            file, to = str(source.file.resolve()), str(between.resolve())
            try:
                call("keras_2", file=file, out=to, trust_code=options.trust_code)
            except ModelError as other:
                raise ModelError(f"{other.message} Keras 3: {exc.message}", code=other.code, fix=other.fix) from exc
            return reexport.serving_only(between, out, Wanted(), options.samples)
    elif found.kind == "python":
        model, schema = function_sources.build(found.path), sources.read_schema(options.schema_file)
    if model is not None and not function_sources.is_module(model):
        return write_keras(model, out, schema, options.requests.formats, options.samples, wanted.names.methods)
    if options.requests.formats and found.kind != "estimator":
        raise InputError(
            f"Input formats are for Keras models and Estimators; {found.path} is a {found.kind}.",
            code="NO_FORMATS",
            fix="Leave --formats out.",
        )
    if found.kind == "saved_model":
        between = sources.with_signatures(Path(found.path), between, wanted)
        if between != Path(found.path):  # the functions have been named signatures
            wanted = Wanted()
    elif found.kind == "estimator":
        from servegraph.export_serving_graph import estimator_source

        between = estimator_source.save(Path(found.path), between, options.schema_file, options.requests)
        if not wanted.signatures:
            wanted = Wanted(signatures=estimator_source.signatures(between))
    elif found.kind == "tf1_checkpoint":
        from servegraph.export_serving_graph import tf1_checkpoint

        tf1_checkpoint.save(found.path, between, wanted)
        wanted = Wanted()
    else:
        function_sources.save_module(model, between, wanted.signatures, found.path)
        wanted = Wanted()
    return reexport.serving_only(between, out, wanted, options.samples)


def _also(before: Proof, after: Proof) -> Proof:
    """Return the proof of two steps, one after the other."""
    largest = max(before.max_abs_diff, after.max_abs_diff)
    return replace(before, max_abs_diff=largest, notes=(*before.notes, *after.notes))


def _main_signature(path: Path) -> tuple[str, dict[str, Signature]]:
    """Return the name of the default signature, else of the first, and all that clients can call."""
    found = read_saved_model(storage.open_dir(path)).meta_graphs[0].signatures
    signatures = {name: found[name] for name in sorted(found) if not name.startswith("__saved_model_")}
    return (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else next(iter(signatures))), signatures


def _warm_up(path: Path, records: str) -> int:
    from servegraph.answers import warmup_writer

    name, signatures = _main_signature(path)
    return warmup_writer.write(path, name, signatures[name], records)


def _described(path: Path, proof: Proof, kind: Kind, warmup_requests: int) -> Exported:
    directory = storage.open_dir(path)
    name, signatures = _main_signature(path)
    main = signatures[name]
    return Exported(
        size_bytes=sum(file.size_bytes for file in directory.files()),
        digest=content_digest(directory),
        inputs=tuple(main.inputs),
        outputs=tuple(main.outputs),
        max_abs_diff=proof.max_abs_diff,
        proof_rows=proof.rows,
        source_kind=kind,
        signatures=tuple(signatures),
        notes=proof.notes,
        warmup_requests=warmup_requests,
        tag_sets=tuple(graph.tags for graph in read_saved_model(directory).meta_graphs),
    )
