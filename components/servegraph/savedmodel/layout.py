"""Which files belong to a SavedModel, the digest of a directory, and what a directory is that is none."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from servegraph.errors import ModelError, StorageError
from servegraph.storage.directory import GRAPH_FILES, Directory, FileInfo, iter_chunks
from servegraph.storage.subset import Subset

Role = Literal[
    "graph",
    "variables",
    "asset",
    "asset_extra",
    "fingerprint",
    "keras_metadata",
    "debug_info",
    "explanation_metadata",
    "stray_checkpoint",
    "stray_summary",
    "stray",
]

# The first row that matches says what a file is. What comes before "stray_checkpoint" belongs to the model.
ROLES: tuple[tuple[Role, str], ...] = (
    ("graph", r"saved_model\.(pb|pbtxt|cpb)"),
    # Without an ending it is a checkpoint of version 1, which Python's loader still takes.
    ("variables", r"variables/variables(\.index|\.data-\d{5}-of-\d{5}|-\d{5}-of-\d{5})?"),
    ("asset", r"assets/.+"),
    ("asset_extra", r"assets\.extra/.+"),  # warmup requests and the like
    ("fingerprint", r"fingerprint\.pb"),
    ("keras_metadata", r"keras_metadata\.pb|keras_spec\.json"),
    ("debug_info", r"debug/saved_model_debug_info\.pb"),
    ("explanation_metadata", r"explanation_metadata\.json"),  # AI Platform reads it
    ("stray_checkpoint", r"(.*/)?(checkpoint|[^/]+\.(ckpt[^/]*|index|meta|data-\d{5}-of-\d{5})|ckpt[^/]*)"),
    ("stray_summary", r"(.*/)?events\.out\.tfevents\.[^/]*"),
    ("stray", r".*"),
)
# Sample requests and the answers the model gave, for whoever deploys it; TF Serving passes over what it does not know
# in assets.extra.
GOLDEN_FILE = "assets.extra/golden_requests.jsonl.gz"
ROUTINE_FILE = "assets.extra/routine/routine.json"  # the manifest of a custom prediction routine
STRAY_ROLES = frozenset({"stray_checkpoint", "stray_summary", "stray"})


def role_of(path: str) -> Role:
    """Return what a file of a SavedModel directory is there for, from its path relative to the directory."""
    return next(role for role, pattern in ROLES if re.fullmatch(pattern, path, re.DOTALL))


def is_stray(path: str) -> bool:
    """Whether a file in a SavedModel's directory is no part of it: a training checkpoint, a summary, anything else."""
    return role_of(path) in STRAY_ROLES


def without_strays(directory: Directory) -> Directory:
    """Return the directory of a SavedModel with its own files alone."""
    return Subset(directory, lambda path: not is_stray(path))


def content_digest(directory: Directory) -> str:
    """Return `sha256:…` over the sorted relative paths, sizes and contents of all files; nothing is left out.

    Two directories have the same digest exactly if they hold the same files. Reads all, a piece at a time.

    Raises:
        StorageError: a file cannot be read.
    """
    from hashlib import sha256

    digest = sha256()
    for info in sorted(directory.files(), key=lambda info: info.path):
        file = directory.open(info.path)
        try:
            # The length makes it impossible to move bytes from one file to the next unseen.
            # A name on a local disk need not be text.
            digest.update(f"{info.path}\0{file.size_bytes}\0".encode("utf-8", "surrogateescape"))
            for chunk in iter_chunks(file):
                digest.update(chunk)
        finally:
            file.close()
    return f"sha256:{digest.hexdigest()}"


class _Lookalike(NamedTuple):
    """Something that is given in place of a SavedModel: how to tell, what it is, what to do with it."""

    pattern: str
    what: str
    fix: str


_EXPORT_KERAS = "Export it: servegraph export FILE OUT."
_EXPORT_CHECKPOINT = "Export the model from its training directory: servegraph export MODEL_DIR OUT."

# Matched against the path that was given if it is a file, against the files in it if it is a directory.
LOOKALIKES = (
    _Lookalike(r"(.*/)?saved_model\.(pb|pbtxt)", "a SavedModel's graph", "Give the directory that it is in."),
    _Lookalike(r".*\.keras", "a Keras file", _EXPORT_KERAS),
    _Lookalike(r".*\.(h5|hdf5)", "a Keras HDF5 file", _EXPORT_KERAS),
    _Lookalike(r".*\.tflite", "a LiteRT model", "Give the SavedModel that it was converted from."),
    _Lookalike(r".*\.onnx", "an ONNX model", "Give the SavedModel that it was converted from."),
    _Lookalike(r"(.*/)?(checkpoint|.*\.index|.*\.data-\d{5}-of-\d{5}|.*\.ckpt)", "a checkpoint", _EXPORT_CHECKPOINT),
    _Lookalike(
        r".*\.pb(txt)?",
        "a frozen TensorFlow 1 graph",
        "Export it with tf.compat.v1.saved_model.simple_save, which adds the signature that it lacks.",
    ),
    _Lookalike(r".*\.(zip|tar|tgz|tar\.(gz|xz|bz2|zst))", "an archive", "Unpack it and give the directory in it."),
    _Lookalike(r"(.*/)?model\.json", "a TensorFlow.js model", "Give the SavedModel that it was converted from."),
)


def require_saved_model(directory: Directory) -> list[FileInfo]:
    """Return the files of a directory that is a SavedModel.

    Raises:
        ModelError: it is something else (`NOT_A_SAVED_MODEL`); the message says what, the fix what to do.
        StorageError: it cannot be listed.
    """
    try:
        files = directory.files()
    except StorageError as error:
        reason = _mistaken_uri(directory.uri, error)
        if reason is None:
            raise
        raise _not_a_saved_model(directory.uri, *reason) from error
    if not any(role_of(info.path) == "graph" for info in files):
        raise _not_a_saved_model(directory.uri, *_what_it_is([info.path for info in files]))
    return files


def _not_a_saved_model(uri: str, what: str, fix: str) -> ModelError:
    return ModelError(f"{uri} is not a SavedModel: {what}.", code="NOT_A_SAVED_MODEL", fix=fix)


def _mistaken_uri(uri: str, error: StorageError) -> tuple[str, str] | None:
    """Explain a URI that cannot be listed, if it tells what was meant."""
    if error.code not in ("NOT_A_DIRECTORY", "NOT_A_FILE"):
        return None
    name = PurePosixPath(uri).name
    return _lookalike([name]) or ("it is a file", "Give the directory that holds saved_model.pb.")


def _what_it_is(paths: list[str]) -> tuple[str, str]:
    """Explain a directory without a graph by what is in it."""
    if not paths:
        return "it is empty", "Check the path; give the directory that holds saved_model.pb."
    graphs = [path for path in paths if PurePosixPath(path).name in GRAPH_FILES]
    folders = [str(PurePosixPath(path).parent) for path in graphs]
    versions = sorted((int(folder), folder) for folder in folders if re.fullmatch(r"\d{1,19}", folder))
    if versions:
        newest = versions[-1][1]
        return f"it holds {len(versions)} versions of a model", f"Give one of them; the newest is {newest}."
    if len(folders) > 1:
        return f"{len(folders)} SavedModels are in directories below", f"Give one of them, e.g. {min(folders)}."
    if folders:
        return "its SavedModel is in a directory below", f"Give that directory: {folders[0]}."
    if any(path.endswith("model.weights.h5") for path in paths):
        return "it is an unpacked Keras file", _EXPORT_KERAS
    if not all(map(is_stray, paths)):
        return "its saved_model.pb is missing, or no file", "Copy the whole directory again, or export the model again."
    if {path.partition(".")[0] for path in paths} == {"variables"}:
        return "it is the variables of one", "Give the directory above."
    explained = _lookalike([path for path in paths if "/" not in path] or paths)
    return explained or ("it has no saved_model.pb", "Give the directory that holds saved_model.pb.")


def _lookalike(paths: list[str]) -> tuple[str, str] | None:
    for row in LOOKALIKES:
        for path in paths:
            if re.fullmatch(row.pattern, path):
                return f"{PurePosixPath(path).name} is {row.what}", row.fix
    return None
