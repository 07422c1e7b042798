"""`ROOT/NAME/versions.json`: which version of a model has traffic, and what each version is.

A directory of versions is TF Serving's layout, `ROOT/NAME/<integer>/saved_model.pb`. This one small file
beside them, replaced in one step, is what makes a version live: a version directory that it does not name is
not served. The deploy writes it, the server follows it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from servegraph.errors import InputError, in_short
from servegraph.serve.signatures import Signatures, signatures_from_json, signatures_to_json
from servegraph.storage.local import answering

STATE_FILE = "versions.json"
SPARE_FILE = f".{STATE_FILE}.spare"  # keeps the room for the next state
FORMAT = 1

# What TF Serving's routes can carry as a name (`[^/:]+` in http_rest_api_util.cc), minus what a directory
# cannot be called safely: nothing that needs quoting in a URL, no leading dot, no way up.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class ServingConfig:
    """How a version is to be served, which its files do not say. With their digest it is its identity."""

    machine_type: str | None = None
    accelerator_type: str | None = None
    accelerator_count: int = 0


@dataclass(frozen=True)
class VersionRecord:
    """One deployed version. `created` is UTC, ISO 8601."""

    digest: str
    created: str
    size_bytes: int
    config: ServingConfig = ServingConfig()
    signatures: Signatures = field(default_factory=dict)


@dataclass(frozen=True)
class ModelState:
    """All that is known about the versions of one model.

    `traffic` is in percent and sums to 100, or is empty. `unfinished` are directories of ours that are not
    versions: about to be published, or being removed. `rolled_back_from` is set while a rollback is the last
    change.
    """

    versions: Mapping[int, VersionRecord] = field(default_factory=dict)
    traffic: Mapping[int, int] = field(default_factory=dict)
    previous: int | None = None
    rolled_back_from: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    next_version: int = 1
    unfinished: tuple[int, ...] = ()

    @property
    def live(self) -> int | None:
        """The version with the largest share of the traffic, or None where nothing has any."""
        return max(self.traffic, key=lambda version: (self.traffic[version], version), default=None)

    def without(self, removed: tuple[int, ...]) -> ModelState:
        """Return the state after the versions `removed` are gone; their directories become `unfinished`."""
        gone = set(removed) & set(self.versions)
        return replace(
            self,
            versions={number: record for number, record in self.versions.items() if number not in gone},
            traffic={number: share for number, share in self.traffic.items() if number not in gone},
            previous=None if self.previous in gone else self.previous,
            rolled_back_from=None if self.rolled_back_from in gone else self.rolled_back_from,
            labels={label: number for label, number in self.labels.items() if number not in gone},
            unfinished=tuple(sorted({*self.unfinished, *gone})),
        )


def check_model_name(name: str) -> str:
    """Return `name` if it can be a directory and a part of a URL.

    Raises:
        InputError: it cannot (code `BAD_MODEL_NAME`).
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of a model.",
            code="BAD_MODEL_NAME",
            fix="Use letters, digits, '_', '-' and '.', first a letter or digit, at most 128 of them.",
        )
    return name


def read_state(model_dir: Path) -> ModelState | None:
    """Return the state below `model_dir`, or None where there is none.

    Raises:
        InputError: there is one that this version of servegraph cannot read (code `BAD_STATE`).
        StorageError: the file cannot be read.
    """
    path = model_dir / STATE_FILE
    with answering("read", path):
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
    try:
        return _from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InputError(
            f"{str(path)!r} is not a state file that this version of servegraph reads: {in_short(exc)}.",
            code="BAD_STATE",
            fix="Restore the file, or move it away: the newest version directory is then the live one.",
        ) from exc


def write_state(model_dir: Path, state: ModelState) -> None:
    """Replace the state below `model_dir` in one step; after a crash either the old or the new one is there.

    On a full disk the spare file, whose room is taken already, becomes the state: else nothing could be rolled back or
    removed there.

    Raises:
        StorageError: it cannot be written; the old one is then still there.
    """
    path, spare = model_dir / STATE_FILE, model_dir / SPARE_FILE
    content = (json.dumps(_to_json(state), indent=2, ensure_ascii=False) + "\n").encode()
    temporary = model_dir / f".{STATE_FILE}.{secrets.token_hex(4)}.tmp"
    with answering("write", path):
        try:
            _write(temporary, content, "xb")
            temporary.replace(path)
        except BaseException as exc:
            temporary.unlink(missing_ok=True)
            is_full = isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)
            if not is_full or not spare.is_file() or spare.stat().st_size < len(content):
                raise
            _write(spare, content, "r+b")
            spare.replace(path)
        sync_directory(model_dir)
    with contextlib.suppress(OSError):  # without a spare all is as before
        if not spare.is_file() or spare.stat().st_size < 2 * len(content):
            _write(spare, bytes(4 * len(content)), "wb")


def _write(path: Path, content: bytes, mode: str) -> None:
    with path.open(mode) as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())  # else the rename can survive a power failure that the content does not


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_json(state: ModelState) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "traffic": {str(number): share for number, share in sorted(state.traffic.items())},
        "previous": state.previous,
        "rolled_back_from": state.rolled_back_from,
        "labels": dict(sorted(state.labels.items())),
        "next_version": state.next_version,
        "unfinished": list(state.unfinished),
        "versions": {
            str(number): {
                "digest": record.digest,
                "created": record.created,
                "size_bytes": record.size_bytes,
                "config": asdict(record.config),
                "signatures": signatures_to_json(record.signatures),
            }
            for number, record in sorted(state.versions.items())
        },
    }


def _from_json(document: Mapping[str, Any]) -> ModelState:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']!r}, this version reads {FORMAT}")
    state = ModelState(
        versions={
            int(number): VersionRecord(
                digest=str(entry["digest"]),
                created=str(entry["created"]),
                size_bytes=int(entry["size_bytes"]),
                config=ServingConfig(**entry["config"]),
                signatures=signatures_from_json(entry["signatures"]),
            )
            for number, entry in document["versions"].items()
        },
        traffic={int(number): int(share) for number, share in document["traffic"].items()},
        previous=_optional_int(document["previous"]),
        rolled_back_from=_optional_int(document["rolled_back_from"]),
        labels={str(label): int(number) for label, number in document["labels"].items()},
        next_version=int(document["next_version"]),
        unfinished=tuple(int(number) for number in document["unfinished"]),
    )
    unknown = {*state.traffic, *state.labels.values()} - set(state.versions)
    if unknown:
        raise ValueError(f"traffic or labels for versions {sorted(unknown)} that it does not list")
    return state


def _optional_int(value: Any) -> int | None:
    return None if value is None else int(value)
