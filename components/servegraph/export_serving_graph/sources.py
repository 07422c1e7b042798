"""Where a model to export comes from: a Keras file, a trained model's directory, or a checkpoint directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servegraph.data import schema as schemas
from servegraph.data.schema import Schema
from servegraph.errors import InputError, ModelError
from servegraph.trained import SCHEMA_FILE, checkpoints

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Source:
    """A `.keras` file and, where it is known, the schema of the data it was trained on."""

    file: Path
    schema: Schema | None


def find(path: Path, schema_file: Path | None = None) -> Source:
    """Return what `path` holds: the file itself, its only `.keras` file, or the newest whole training checkpoint.

    Raises:
        ModelError: nothing there can be exported (code `NOTHING_TO_EXPORT`).
        SchemaError, InputError: the schema file cannot be used.
    """
    file = _keras_file(path)
    beside = file.parent / SCHEMA_FILE
    if schema_file is None and beside.is_file():
        schema_file = beside
    if schema_file is None:
        return Source(file, None)
    if not schema_file.is_file():
        raise InputError(f"There is no schema file {schema_file}.", code="NO_SCHEMA")
    return Source(file, schemas.parse(schema_file.read_text(encoding="utf-8"), str(schema_file)))


def load(source: Source, *, trust_code: bool = False) -> keras.Model:
    """Load the Keras model; Python code inside it (Lambda layers) runs only if `trust_code`.

    Raises:
        ModelError: damaged (`KERAS_FILE_DAMAGED`), untrusted code in it (`UNTRUSTED_CODE`), or a custom layer that
            is not registered (`UNKNOWN_LAYER`).
    """
    import keras

    import servegraph.trained.layers  # noqa: F401  # registers the default trainer's layers

    try:
        return keras.models.load_model(source.file, compile=False, safe_mode=not trust_code)
    except (ValueError, TypeError, OSError, KeyError) as exc:
        text = str(exc)
        if "safe_mode" in text or ("Lambda" in text and "deserializ" in text):
            raise ModelError(
                f"{source.file} contains Python code (a Lambda layer), which is not run unasked.",
                code="UNTRUSTED_CODE",
                fix="If you trust whoever made the file, allow it with --trust-code (trust_code=True).",
            ) from exc
        if "custom_objects" in text or "register_keras_serializable" in text or "Could not locate" in text:
            raise ModelError(
                f"{source.file} uses a layer that is not known here: {text}",
                code="UNKNOWN_LAYER",
                fix="Register it with keras.saving.register_keras_serializable and name its module with --trainer.",
            ) from exc
        raise ModelError(
            f"{source.file} cannot be loaded as a Keras model: {text}",
            code="KERAS_FILE_DAMAGED",
            fix="Export from a whole .keras file or another checkpoint.",
        ) from exc


def _keras_file(path: Path) -> Path:
    if path.is_file() and path.suffix == ".keras":
        return path
    if path.is_dir():
        found = checkpoints.newest(path)
        if found:
            return found[1]
        others = sorted(path.glob("*.keras"))
        if len(others) == 1:
            return others[0]
    raise ModelError(
        f"{path} holds no model to export" + ("." if path.exists() else ": it does not exist."),
        code="NOTHING_TO_EXPORT",
        fix="Give a .keras file, a directory with one, or a checkpoint directory written in training.",
    )
