"""What is below `ROOT/NAME` now, read without changing it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

from servegraph.deploy_version.staging import leftovers
from servegraph.deploy_version.targets.local_plan import Seen
from servegraph.errors import InputError, ModelError, StorageError
from servegraph.routine.manifest import Routine, read_routine
from servegraph.savedmodel.layout import content_digest, require_saved_model
from servegraph.serve.signatures import read_serving_graph
from servegraph.serve.state import ModelState, VersionRecord, read_state
from servegraph.serve.versions import holds_model, version_directories
from servegraph.storage import open_dir
from servegraph.storage.local import answering


def see(model_dir: Path, digest: str | None = None) -> Seen:
    """Return what is below `model_dir`, which need not exist; versions of `digest` are read, and lost if they differ.

    Raises:
        InputError: its state file cannot be understood (code `BAD_STATE`), or versions without one have zeros before
            their numbers (`ZERO_PADDED_VERSION`).
        StorageError: it cannot be read.
    """
    state = read_state(model_dir)
    found = version_directories(model_dir)
    directories = tuple(found)
    if state is None and directories:
        _require_plain_names(found)
        return _plain_layout(model_dir, directories)
    state = state or ModelState()
    return Seen(
        state=state,
        directories=directories,
        leftovers=leftovers(model_dir),
        adoptable=dict(_digests(model_dir, set(state.unfinished) & set(directories))),
        live_routine=_routine_of(model_dir, state.live),
        lost=tuple(
            number
            for number, record in sorted(state.versions.items())
            if not is_whole(model_dir / str(number), record, read=record.digest == digest)
        ),
    )


def is_whole(version_dir: Path, record: VersionRecord, *, read: bool) -> bool:
    """Whether all that was deployed is there, told by its size, which costs no reading; what was added may be more.

    With `read` it is told by its content too, where nothing was added.
    """
    if not holds_model(version_dir):
        return False
    try:
        directory = open_dir(version_dir)
        size_bytes = sum(info.size_bytes for info in directory.files())
        if read and size_bytes == record.size_bytes:
            return content_digest(directory) == record.digest
        return size_bytes >= record.size_bytes
    except StorageError as error:
        if error.code != "NOT_FOUND":
            raise
        return False  # it was removed meanwhile


def _routine_of(model_dir: Path, live: int | None) -> Routine | None:
    with contextlib.suppress(StorageError, ModelError):  # then nothing can be said of it
        return None if live is None else read_routine(open_dir(model_dir / str(live)))
    return None


def _digests(model_dir: Path, numbers: Iterable[int]) -> Iterator[tuple[int, str]]:
    for number in sorted(numbers):
        # A plan is made without the lock: the change that announced the directory may be removing it.
        with contextlib.suppress(StorageError, ModelError):
            yield number, content_digest(open_dir(model_dir / str(number)))


def _require_plain_names(found: Mapping[int, Path]) -> None:
    padded = [path for number, path in found.items() if path.name != str(number)]
    if padded:
        raise InputError(
            f"{str(padded[0])!r} has zeros before its number, which a deployed version has not.",
            code="ZERO_PADDED_VERSION",
            fix=f"Rename it to {int(padded[0].name)}; a server takes either for the same version.",
        )


def _plain_layout(model_dir: Path, directories: tuple[int, ...]) -> Seen:
    """Versions that lie there without a state: each that is a SavedModel, the newest with the traffic."""
    versions = {}
    for number in directories:
        try:
            versions[number] = _record(model_dir / str(number))
        except ModelError:
            continue  # a server could not load it either
    state = ModelState(
        versions=versions,
        traffic={max(versions): 100} if versions else {},
        next_version=max(directories) + 1,
    )
    return Seen(
        state=state,
        managed=False,
        directories=directories,
        leftovers=leftovers(model_dir),
        adoptable={number: record.digest for number, record in versions.items()},
        live_routine=_routine_of(model_dir, state.live),
    )


def _record(version_dir: Path) -> VersionRecord:
    directory = open_dir(version_dir)
    require_saved_model(directory)
    with answering("read", version_dir):
        created = datetime.fromtimestamp(version_dir.stat().st_mtime, timezone.utc)
    return VersionRecord(
        digest=content_digest(directory),
        created=created.isoformat(timespec="seconds"),
        size_bytes=sum(info.size_bytes for info in directory.files()),
        signatures=read_serving_graph(directory).signatures,
    )
