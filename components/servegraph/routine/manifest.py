"""The routine of a model as its files say: names and pins, read without running anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from servegraph.errors import ModelError, StorageError, in_short
from servegraph.savedmodel.layout import ROUTINE_FILE
from servegraph.storage import Directory

MANIFEST = ROUTINE_FILE
FOLDER = MANIFEST.rpartition("/")[0]
GOLDEN = f"{FOLDER}/golden_requests.jsonl"
# Beside the user's modules lies what AI Platform's runtime calls, under this name.
ADAPTER = "servegraph_routine"
FORMAT = 1
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_FILE = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class Routine:
    """A packaged routine. File names are relative to the routine's folder.

    `predictor` is module:Class. `interface` is `predictor` for a class as the Vertex SDK defines it, `from_path` for
    one of the legacy AI Platform. `needs_servegraph`: whether it derives from a class of ours. `requirements` are pins,
    name==version; those that `wheels` has not, the server has to have.
    """

    predictor: str
    interface: str
    needs_servegraph: bool
    wheel: str
    sdist: str
    requirements: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the text of the manifest."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True) + "\n"


def read_routine(directory: Directory) -> Routine | None:
    """Return the routine of the model in `directory`, None where it has none.

    Raises:
        ModelError: the manifest cannot be used (code `BAD_ROUTINE`).
        StorageError: it cannot be read.
    """
    try:
        text = directory.read_bytes(MANIFEST)
    except StorageError as exc:
        if exc.code in ("NOT_FOUND", "NOT_A_DIRECTORY"):
            return None
        raise
    try:
        return _routine(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelError(
            f"{MANIFEST} of {directory.uri!r} cannot be used: {in_short(exc)}.",
            code="BAD_ROUTINE",
            fix="Package the routine again with `servegraph package`.",
        ) from exc


def _routine(document: Mapping[str, Any]) -> Routine:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']!r} is not {FORMAT}")
    routine = Routine(
        predictor=str(document["predictor"]),
        interface=str(document["interface"]),
        needs_servegraph=bool(document["needs_servegraph"]),
        wheel=str(document["wheel"]),
        sdist=str(document["sdist"]),
        requirements=tuple(map(str, document["requirements"])),
        wheels=tuple(map(str, document["wheels"])),
    )
    if not _CLASS.fullmatch(routine.predictor):
        raise ValueError(f"{routine.predictor!r} is not module:Class")
    # They become paths: a name that leads elsewhere must not.
    strange = [name for name in (routine.wheel, routine.sdist, *routine.wheels) if not _FILE.fullmatch(name)]
    if strange:
        raise ValueError(f"{strange[0]!r} is not the name of a file")
    return routine
