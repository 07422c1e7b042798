"""Loading what an export starts from: a Keras file with the schema beside it, a SavedModel without signatures."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servegraph import storage
from servegraph.data.schema import Schema
from servegraph.data.schema_file import parse
from servegraph.errors import InputError, ModelError
from servegraph.export_serving_graph.signature_choice import Wanted
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.storage.local import require_files
from servegraph.trained import SCHEMA_FILE

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Source:
    """A Keras file (`.keras`, or `.h5` of Keras 2) and, where it is known, the schema of the data it was trained on."""

    file: Path
    schema: Schema | None


def find(file: Path, schema_file: Path | None = None) -> Source:
    """Return the Keras file with the schema that is given, else the one that lies beside it.

    Raises:
        SchemaError, InputError: the schema file cannot be used.
    """
    beside = file.parent / SCHEMA_FILE
    if schema_file is None and beside.is_file():
        schema_file = beside
    return Source(file, read_schema(schema_file))


def read_schema(file: Path | None) -> Schema | None:
    """Return the schema in `file`, None without one.

    Raises:
        SchemaError, InputError: it cannot be used.
    """
    if file is None:
        return None
    if not file.is_file():
        raise InputError(
            f"There is no schema file {file}.",
            code="NO_SCHEMA",
            fix="Give the path of a schema; `servegraph schema DATA --out FILE` writes one.",
        )
    return parse(file.read_text(encoding="utf-8"), str(file))


def classes(schema: Schema | None) -> tuple[str, ...]:
    """Return the classes that a model of this schema answers with, none where it answers with numbers."""
    if schema is None or not schema.is_classification:
        return ()
    return schema.label_column.classes or ()


def with_signatures(model: Path, between: Path, wanted: Wanted) -> Path:
    """Return a SavedModel whose signatures can be chosen: `model`, or one at `between` made of its functions.

    A tf.Module saved without signatures still has its functions; `wanted.signatures` names them.

    Raises:
        InputError: several functions could serve (code `WHICH_SIGNATURE`).
        ModelError: it cannot be loaded (code `CANNOT_LOAD`).
        StorageError: there is a pipe or a device in it, at which TensorFlow would wait for ever.
    """
    import tensorflow as tf

    from servegraph.export_serving_graph import function_sources

    meta_graphs = read_saved_model(storage.open_dir(model)).meta_graphs
    if len(meta_graphs) != 1 or any(s.outputs and not n.startswith("__") for n, s in meta_graphs[0].signatures.items()):
        return model
    require_files(model)
    try:
        loaded = tf.saved_model.load(str(model))
    except (ValueError, RuntimeError, OSError, KeyError, TypeError, AttributeError, tf.errors.OpError) as exc:
        raise ModelError(
            f"TensorFlow {tf.__version__} cannot load {model}: {str(exc)[:300]}",
            code="CANNOT_LOAD",
            fix="Run `servegraph inspect` on it: it names damage, missing files and unknown ops.",
        ) from exc
    function_sources.save_module(loaded, between, wanted.signatures, str(model))
    return between


def load(source: Source, *, trust_code: bool = False) -> keras.Model:
    """Load the Keras model; Python code inside it (Lambda layers) runs only if `trust_code`.

    Raises:
        ModelError: damaged (`KERAS_FILE_DAMAGED`), untrusted code in it (`UNTRUSTED_CODE`), a custom layer that is not
            registered (`UNKNOWN_LAYER`), or written by a Keras whose files this one does not read (`OTHER_KERAS`).
    """
    import keras

    import servegraph.trained.layers  # noqa: F401  # registers the default trainer's layers

    try:
        return keras.models.load_model(source.file, compile=False, safe_mode=not trust_code)
    except (ValueError, TypeError, OSError, KeyError, AttributeError) as exc:
        text = str(exc)
        if "safe_mode" in text:
            raise _untrusted(source.file) from exc
        if "custom_objects" in text or "register_keras_serializable" in text or "Could not locate" in text:
            raise ModelError(
                f"{source.file} uses a layer that is not known here: {text}",
                code="UNKNOWN_LAYER",
                fix="Register it with keras.saving.register_keras_serializable and name its module with --trainer.",
            ) from exc
        version = None if isinstance(exc, OSError) else written_by(source.file)
        if version is not None and (version != keras.__version__ or _is_hdf5(source.file)):
            raise _of_other_keras(source.file, version, text) from exc
        raise ModelError(
            f"{source.file} cannot be loaded as a Keras model: {text}",
            code="KERAS_FILE_DAMAGED",
            fix="Export from a whole .keras file or another checkpoint.",
        ) from exc


def may_be_keras_2(file: Path) -> bool:
    """Whether Keras 2 could have written the file: it says so, or is HDF5 and does not say who wrote it."""
    version = written_by(file)
    return _is_hdf5(file) if version is None else version.startswith("2.")


def written_by(file: Path) -> str | None:
    """Return the version of the Keras that wrote a `.keras` archive or an HDF5 file, None where neither says one."""
    import h5py

    try:
        if _is_hdf5(file):
            with h5py.File(file) as opened:
                version = opened.attrs["keras_version"]
            return version.decode() if isinstance(version, bytes) else str(version)
        with zipfile.ZipFile(file) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError):
        return None


def _is_hdf5(file: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(file))


def _of_other_keras(file: Path, version: str, text: str) -> ModelError:
    """Return what to say of a file that its Keras wrote whole and this one does not read."""
    import keras

    # Keras wraps an error once for every layer round the one that it is about, each with the whole configuration.
    layers = re.findall(r"deserializing class '(\w+)'", text)
    cause = ": ".join([*layers[-1:], text.rpartition("Exception encountered: ")[2]])
    if _is_hdf5(file) and version.startswith("3."):  # it reads few of its own: operations such as x + y are in none
        fix = "Save it as .keras, or with model.export(OUT), where it was made, and give that."
    else:
        fix = f"Call model.export(OUT) with Keras {version}, and give OUT; or save it by a newer Keras that reads it."
    return ModelError(
        f"{file} was written by Keras {version}, and Keras {keras.__version__} does not read it: {cause}",
        code="OTHER_KERAS",
        fix=fix,
    )


def _untrusted(file: Path) -> ModelError:
    return ModelError(
        f"{file} contains Python code (a Lambda layer), which is not run unasked.",
        code="UNTRUSTED_CODE",
        fix="If you trust whoever made the file, allow it with --trust-code (trust_code=True).",
    )
