"""What should be loaded: the versions of each model, read from the files below the root."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from servegraph.errors import InputError
from servegraph.serve.state import STATE_FILE, ModelState, check_model_name, read_state
from servegraph.storage.directory import GRAPH_FILES
from servegraph.storage.local import answering

_LARGEST_VERSION = 2**63 - 1  # TF Serving's: safe_strto64 in file_system_storage_path_source.cc


@dataclass(frozen=True)
class WantedVersion:
    """A version to load. `identity` changes when another model comes to lie in the same directory."""

    directory: Path
    identity: str


@dataclass(frozen=True)
class WantedModel:
    """The versions of one model, their shares of the unversioned requests, and their labels."""

    versions: Mapping[int, WantedVersion]
    traffic: Mapping[int, int]
    labels: Mapping[str, int] = field(default_factory=dict)


def model_names(root: Path) -> list[str]:
    """Return the names of the models below `root`: directories that hold versions or a state.

    Raises:
        StorageError: `root` does not exist or cannot be read.
    """
    with answering("list", root):
        return sorted(entry.name for entry in root.iterdir() if _is_model(entry))


def wanted_model(model_dir: Path) -> WantedModel:
    """Return what should be loaded of the model in `model_dir`.

    With a state file: every version that it names. Without, as TF Serving does by default: the newest one.

    Raises:
        InputError: the state file cannot be understood (code `BAD_STATE`).
        StorageError: the directory cannot be read.
    """
    state = read_state(model_dir)
    return _newest(model_dir) if state is None else _from_state(model_dir, state)


def version_directories(model_dir: Path) -> dict[int, Path]:
    """Return the version directories below `model_dir` by their numbers, ascending, whatever they hold.

    Raises:
        StorageError: the directory cannot be read. One that does not exist has none.
    """
    with answering("list", model_dir):
        try:
            entries = [entry for entry in model_dir.iterdir() if _is_version(entry)]
        except FileNotFoundError:
            return {}
    # TF Serving takes zeros before a number, as its own examples have them: of two that are one, the shorter counts.
    return {int(e.name): e for e in sorted(entries, key=lambda entry: (int(entry.name), -len(entry.name)))}


def holds_model(version_dir: Path) -> bool:
    """Whether a SavedModel is there, told by its graph, which is written last. Raises `StorageError`."""
    with answering("read", version_dir):
        return _graph_file(version_dir) is not None


def check_root(root: Path) -> None:
    """Check that `root` is a directory of models.

    Raises:
        StorageError: it does not exist, or is not a directory.
        InputError: it is the directory of one model, or of one version (code `NOT_A_SERVING_ROOT`).
    """
    with answering("list", root):
        entries = list(root.iterdir())
        holds_versions = any(e.name == STATE_FILE or (_is_version(e) and _graph_file(e)) for e in entries)
    if any(entry.name in GRAPH_FILES for entry in entries):
        raise InputError(
            f"{str(root)!r} is a SavedModel, not a directory of models.",
            code="NOT_A_SERVING_ROOT",
            fix="Deploy it (`servegraph deploy`), or copy it to ROOT/NAME/1/ and serve ROOT.",
        )
    if holds_versions:
        raise InputError(
            f"{str(root)!r} holds the versions of one model.",
            code="NOT_A_SERVING_ROOT",
            fix=f"Serve the directory above it: `servegraph serve {root.parent} --name {root.name}`.",
        )


def _from_state(model_dir: Path, state: ModelState) -> WantedModel:
    return WantedModel(
        versions={
            number: WantedVersion(model_dir / str(number), f"{record.digest} {record.created}")
            for number, record in state.versions.items()
        },
        traffic=state.traffic,
        labels=state.labels,
    )


def _newest(model_dir: Path) -> WantedModel:
    for number, directory in reversed(version_directories(model_dir).items()):
        with answering("read", directory):
            graph_file = _graph_file(directory)
            stats = [graph_file, *_stats(directory / "variables")] if graph_file is not None else []
        if graph_file is not None:  # else it is being copied, or no model: an older one will do
            identity = " ".join(f"{stat.st_ino} {stat.st_mtime_ns} {stat.st_size}" for stat in stats if stat)
            return WantedModel({number: WantedVersion(directory, identity)}, {number: 100})
    return WantedModel({}, {})


def _graph_file(directory: Path) -> os.stat_result | None:
    return next((found for name in GRAPH_FILES if (found := _stat(directory / name)) is not None), None)


def _stats(directory: Path) -> list[os.stat_result]:
    """Return what is known of the files in `directory`, in the order of their names; nothing of what is not there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return [entry.stat() for entry in sorted(os.scandir(directory), key=lambda entry: entry.name)]
    return []


def _is_model(entry: Path) -> bool:
    """Whether it is the directory of a model; one that cannot be looked into is: what was loaded of it stays."""
    try:
        check_model_name(entry.name)
        return _stat(entry / STATE_FILE) is not None or (
            _is_directory(entry) and any(map(_is_version, entry.iterdir()))
        )
    except (InputError, FileNotFoundError):
        return False
    except OSError:
        return True


def _is_version(entry: Path) -> bool:
    name = entry.name
    return name.isascii() and name.isdecimal() and int(name) <= _LARGEST_VERSION and _is_directory(entry)


def _is_directory(path: Path) -> bool:
    found = _stat(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _stat(path: Path) -> os.stat_result | None:
    """Return what is known of a file, None where there is none. Raises OSError where nobody can say."""
    try:
        return path.stat()
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
