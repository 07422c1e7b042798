"""What checkpoints were trained on and how: written beside them, so that no other training goes on from them.

A checkpoint does not say what its outputs mean. One of other data would be taken for trained as it is, and its classes
named after those of the new data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servegraph.data import schema_file
from servegraph.data.digest import data_digest
from servegraph.data.schema import Schema
from servegraph.errors import InputError
from servegraph.estimator import BUILT_IN, RECORD_FILE, estimator_function
from servegraph.estimator import hyperparameters as of_estimators
from servegraph.storage.local import answering
from servegraph.train import hyperparameters as of_default_trainer
from servegraph.train.request import DEFAULT_TRAINER, TrainRequest
from servegraph.trained import IDENTITY_FILE, SCHEMA_FILE
from servegraph.trained.checkpoints import PARTIAL

_DESCRIPTIONS = (IDENTITY_FILE, SCHEMA_FILE, RECORD_FILE)  # there before the first checkpoint is
_LENGTHS = ("epochs", "train_steps")  # a longer training of the same goes on from a shorter one
_NO_CHECKPOINT = re.compile(
    rf"\.|{re.escape(PARTIAL)}|(README(\..*)?|lost\+found|{'|'.join(map(re.escape, _DESCRIPTIONS))})$", re.IGNORECASE
)
_QUOTED = 60  # characters of a value that are told
_FIX = "Give a checkpoint_dir, or an output, of its own for each training; or remove what is in it to start anew."

Identity = dict[str, Any]


def identity_of(request: TrainRequest, schema: Schema, hyperparameters: Mapping[str, Any]) -> Identity:
    """Return what a training is of, by the names that a user knows; `schema` has the classes.

    The data is told by its content: the same files elsewhere are the same data. How long to train does not count, nor
    whether a default is written out.
    """
    chosen = {**_defaults(request), **hyperparameters}
    identity = {
        "trainer": request.trainer,
        "seed": request.seed,
        "warm_start": request.warm_start,
        "hyperparameters": {name: value for name, value in chosen.items() if name not in _LENGTHS},
        "data": data_digest([request.data, request.eval_data or ""]),
        "classes": schema.label_column.classes,
        "schema": schema_file.dump(schema),
    }
    return json.loads(json.dumps(identity, default=str))  # type: ignore[no-any-return]  # as it is read back


def _defaults(request: TrainRequest) -> dict[str, Any]:
    """Return the hyperparameters that are not given; those of a trainer of one's own are not known."""
    if make := estimator_function(request.trainer):
        return {**of_estimators.defaults(built_in=make == BUILT_IN), "seed": request.seed}
    return of_default_trainer.defaults() if request.trainer == DEFAULT_TRAINER else {}


def claim(checkpoints: Path, identity: Identity, *, writes: bool) -> None:
    """Make the directory that of the training's checkpoints, unless it has some of another; one worker `writes`.

    The others may come before or after it: they find no checkpoint yet, or their own identity, which is written first.

    Raises:
        InputError: the directory has checkpoints of another training, or files of which that is not known
            (code `OTHER_CHECKPOINTS`).
        StorageError: the directory cannot be written.
    """
    if not _has_checkpoints(checkpoints):
        if writes:
            _write(identity, checkpoints)
        return
    before = _read(checkpoints / IDENTITY_FILE)
    if before is None:
        raise InputError(
            f"{checkpoints} holds files, but no {IDENTITY_FILE} that says of which training they are.",
            code="OTHER_CHECKPOINTS",
            fix=_FIX,
        )
    _compare(before, identity, checkpoints)


def _has_checkpoints(directory: Path) -> bool:
    """Whether there is a file that training may go on from: a trainer of one's own names them as it likes.

    What a volume has that nothing was written to is none, nor is a note to its users.
    """
    found = [path for path in directory.iterdir() if not _NO_CHECKPOINT.match(path.name)] if directory.is_dir() else []
    return any(not path.is_dir() or any(file.is_file() for file in path.rglob("*")) for path in found)


def _write(identity: Identity, directory: Path) -> None:
    with answering("write", directory):
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f"{PARTIAL}{IDENTITY_FILE}"
        partial.write_text(json.dumps(identity, indent=1), encoding="utf-8")
        partial.replace(directory / IDENTITY_FILE)


def _read(file: Path) -> Identity | None:
    """Return the identity in a file; None where there is no file, or not such a one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _compare(before: Identity, now: Identity, checkpoints: Path) -> None:
    differing = [_difference(name, before.get(name), now[name]) for name in now if before.get(name) != now[name]]
    if differing:
        raise InputError(
            f"{checkpoints} holds checkpoints of another training: {'; '.join(differing)}.",
            code="OTHER_CHECKPOINTS",
            fix=_FIX,
        )


def _difference(name: str, before: Any, now: Any) -> str:
    if name in ("data", "schema"):
        return f"the {name} differs"
    if name == "hyperparameters":
        before, now = ({key: some[key] for key in some if before.get(key) != now.get(key)} for some in (before, now))
    return f"{name} {_quoted(before)}, now {_quoted(now)}"


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"
