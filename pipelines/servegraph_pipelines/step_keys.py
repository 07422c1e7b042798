"""What a step on this machine depends on, by content: the code that ran, its parameters, and what its inputs hold.

Every step of a local run leaves its key as `key.json` beside its outputs. `why` compares two of them, and a run with
`--cache` takes the outputs of an earlier step with the same one.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import servegraph
from servegraph import storage
from servegraph.data.digest import data_digest
from servegraph.errors import InputError, ServegraphError
from servegraph.savedmodel.layout import content_digest
from servegraph.storage.digests import file_digest
from servegraph.suggestion import did_you_mean
from servegraph.trained.trainer import source_file

FILE = "key.json"
_DATA = ("data", "eval_data", "schema", "warm_start")  # parameters of `train` that name files


@dataclass(frozen=True)
class Taken:
    """An input artifact: the digest of its files and metadata, and the step that wrote it (empty: not of this run)."""

    digest: str
    producer: str = ""


@dataclass(frozen=True)
class StepKey:
    """A step by what it depends on. `folder` is where its outputs go, and no part of the key.

    `code` is the digest of the image, or of the packages where a step runs in a process; `files` are the digests of the
    files that parameters name. `pinned` says whether all of it is known by content.
    """

    folder: Path
    code: str
    command: str
    parameters: Mapping[str, Any]
    files: Mapping[str, str]
    artifacts: Mapping[str, Taken]
    pinned: bool = True
    # No part of the key either: where the folder was when the outputs were written, whose record has that path, and
    # all files that the step left in it with their sizes.
    place: str = ""
    outputs: Mapping[str, int] = field(default_factory=dict)

    @property
    def step(self) -> str:
        """The name of the step."""
        return self.folder.name

    def same(self, other: StepKey) -> bool:
        """Whether both would write the same: all is known by content and equal, whoever wrote it."""
        mine, its = ({n: t.digest for n, t in key.artifacts.items()} for key in (self, other))
        rest = [(k.code, k.command, k.parameters, k.files) for k in (self, other)]
        return self.pinned and other.pinned and mine == its and rest[0] == rest[1]

    def write(self) -> None:
        """Write it beside the outputs, with their place, names and sizes."""
        document = {**asdict(self), "place": str(self.folder), "outputs": _sizes(self.folder)}
        del document["folder"]
        (self.folder / FILE).write_text(json.dumps(document, indent=2), encoding="utf-8")

    @property
    def is_whole(self) -> bool:
        """Whether all that the step left is still there, by name and size: to read it all would cost what is saved."""
        return self.outputs == _sizes(self.folder)


def _sizes(folder: Path) -> dict[str, int]:
    """Return the sizes of all files below the folder of a step but its key, by path."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / FILE]
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def read(folder: Path) -> StepKey | None:
    """Return the key of a step that succeeded, None where there is none."""
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        artifacts = {name: Taken(**row) for name, row in document.pop("artifacts").items()}
        return StepKey(folder=folder, artifacts=artifacts, **document)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def key_of(command: Sequence[str], code: str) -> StepKey | None:
    """Return the key of a step from the command that starts it, None for one that is no Python component.

    Raises:
        StorageError: an input cannot be read.
    """
    if "--executor_input" not in command:
        return None
    at = command.index("--executor_input") + 1
    given = json.loads(command[at])
    folder = Path(given["outputs"]["outputFile"]).parent
    program = hashlib.sha256(json.dumps([*command[:at], *command[at + 1 :]]).encode()).hexdigest()
    parameters = given.get("inputs", {}).get("parameterValues", {})
    rows = given.get("inputs", {}).get("artifacts", {})
    artifacts = {name: _taken(row["artifacts"], folder.parent) for name, row in rows.items()}
    files = _files(parameters)
    pinned = all(artifact.digest for artifact in artifacts.values()) and all(files.values())
    return StepKey(folder, code, program, parameters, files, artifacts, pinned)


@functools.cache
def installed_code() -> str:
    """Return the digest of what a step in a process runs: servegraph's files, and the versions of all packages."""
    whole = hashlib.sha256()
    for name in sorted(f"{found.name}=={found.version}" for found in distributions()):
        whole.update(name.encode() + b"\0")
    for package in (Path(servegraph.__file__).parent, Path(__file__).parent):
        for file in sorted(package.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                whole.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    return f"sha256:{whole.hexdigest()}"


def _files(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of the files that a training's parameters name; empty for what is not on this machine."""
    if "trainer" not in parameters:
        return {}
    named = {name: str(parameters[name]) for name in _DATA if parameters.get(name)}
    if file := source_file(str(parameters["trainer"])):
        named["trainer"] = file
    return {name: _file_digest(uri) for name, uri in named.items()}


@functools.cache
def _file_digest(uri: str) -> str:
    if "://" in uri:
        return ""  # to read it all would take longer than it may save
    try:
        return f"sha256:{data_digest([uri])}"
    except ServegraphError:
        return ""  # the step says what is wrong with it


def _taken(artifacts: Sequence[Mapping[str, Any]], run: Path) -> Taken:
    whole, producers = hashlib.sha256(), []
    for artifact in artifacts:
        path = Path(artifact["uri"])
        if not path.is_absolute() or not path.exists():
            return Taken("")
        whole.update(f"{_content(path)}\0{json.dumps(artifact.get('metadata', {}), sort_keys=True)}\0".encode())
        if path.is_relative_to(run):
            producers.append(path.relative_to(run).parts[0])
    return Taken(f"sha256:{whole.hexdigest()}", ",".join(dict.fromkeys(producers)))


@functools.cache  # what a step wrote, no other one changes
def _content(path: Path) -> str:
    if path.is_dir():
        return content_digest(storage.open_dir(path))
    return file_digest(path)


def require_step(run: Path, step: str) -> None:
    """Raise `InputError` (code `UNKNOWN_STEP`) where a run has no such step that succeeded."""
    if read(run / step) is None:
        known = sorted(file.parent.name for file in run.glob(f"*/{FILE}"))
        raise InputError(
            f"The run {run.name} has no step {step!r} that succeeded.",
            code="UNKNOWN_STEP",
            fix=f"{did_you_mean(step, known)}It has {', '.join(known) or 'none'}.",
        )


def local_runs(place: Path, step: str, against: Path | None = None) -> tuple[Path, Path]:
    """Return the folders of a run, which must have the step, and of the one to compare it with.

    `place` is an output directory, for its newest run, or the folder of a run below its `pipeline`.

    Raises:
        InputError: there is no such run (code `NO_RUN`), or none before it of its pipeline (`NO_RUN_BEFORE`), or it
            has no such step that succeeded (`UNKNOWN_STEP`).
    """
    now = _run_folder(place)
    require_step(now, step)
    if against is not None:
        return now, _run_folder(against)
    pipeline = now.name[: -len("-2026-01-01-00-00-00-000000")]
    older = [run for run in sorted(now.parent.glob(f"{pipeline}-*")) if len(run.name) == len(now.name) and run < now]
    if not older:
        fix = "Run it again in the same --output-dir, or name the run to compare with: --against FOLDER."
        raise InputError(f"There is no run of {pipeline} before {now.name}.", code="NO_RUN_BEFORE", fix=fix)
    return now, older[-1]


def _run_folder(place: Path) -> Path:
    if any(place.glob(f"*/{FILE}")):
        return place.absolute()
    runs = {key.parents[1] for key in (place / "pipeline").glob(f"*/*/{FILE}")}
    if not runs:
        fix = "Give the --output-dir of `servegraph run`, or --engine vertex or kfp with the name of a run there."
        raise InputError(f"There is no run in {place}.", code="NO_RUN", fix=fix)
    return max(runs, key=lambda run: run.name[-len("2026-01-01-00-00-00-000000") :]).absolute()
