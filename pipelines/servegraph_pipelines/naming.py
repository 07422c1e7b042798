"""What a run calls a model of one's own data where nobody named it: after the data.

Under the pipelines' default the models of any two data sets would be versions of one. A date in the name of a file is
no part of the model's: that of June is compared with that of May.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from servegraph.data import census
from servegraph.storage.directory import local_path
from servegraph_pipelines.foresight import OWN
from servegraph_pipelines.specification import Specification

_LONGEST = 128  # see `check_model_name`
_YEAR, _MONTH, _DAY = "(?:19|20)[0-9]{2}", "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])"
_DATE = (  # 2024, 2024-06, 202406, 2024-06-30, 20240630, 20240630T1200, 2024-Q2, 2024W26; 06-2024, 30-06-2024
    f"(?:{_YEAR}(?:[-_ ]?{_MONTH}(?:[-_ ]?{_DAY}(?:[-_ T]?[0-9]{{4,6}})?)?|[-_ ]?[QW][0-9]{{1,2}})?"
    f"|(?:{_DAY}[-_ ])?{_MONTH}[-_ ]{_YEAR})"
)
_AT_AN_END = re.compile(f"^{_DATE}(?![0-9A-Z])|(?<![0-9A-Z]){_DATE}$|(?<![0-9]){_YEAR}{_MONTH}{_DAY}$", re.IGNORECASE)
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
)
_DIGITS = 8  # of a digest, in the place of letters that a model's name cannot have


def filled_in(
    specification: Specification, values: Mapping[str, Any], say: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Return the parameters with the model's name, which `say` is told where it is filled in.

    It is not where one is given, the data is the sample, or the pipeline is none of ours.
    """
    data = values.get("data", census.NAME)
    if specification.name not in OWN or "model_name" in values or data == census.NAME:
        return dict(values)
    name = name_of(data)
    say(f"The model is called {name}, after the data; the parameter model_name gives another name.")
    return {**values, "model_name": name}


def name_of(data: str) -> str:
    """Return the name of a file up to its first dot, of a pattern that of the folder above, as a valid model name.

    A date at either end is left out. A name without a letter beside it, or of a partition (`day=30`), gives way to that
    of the folder above.
    """
    local = local_path(data)
    path: PurePath = PurePosixPath(data.partition("://")[2])
    if local is not None:
        path = Path(os.path.abspath(local))  # noqa: PTH100  of `..` Path.absolute has no name
    if local is None or not local.exists():
        path = next(part for part in (path, *path.parents) if not glob.has_magic(str(part)))
    stems = (part.name.partition(".")[0] for part in (path, *path.parents) if "=" not in part.name)
    undated = (_AT_AN_END.sub("", stem).strip("-_ ") for stem in stems)
    return next((_valid(name) for name in undated if any(map(str.isalpha, name))), "model")


def _valid(name: str) -> str:
    """Return a name in the letters that a model's can have; where others are lost, a digest tells it from the rest."""
    name = unicodedata.normalize("NFKD", name.translate(_LETTERS))
    plain = "".join(character for character in name if not unicodedata.combining(character))
    valid = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-_")[:_LONGEST]
    if valid and all(character.isascii() or not character.isalnum() for character in plain):
        return valid
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
    return f"{valid[: _LONGEST - 1 - _DIGITS].rstrip('-_') or 'model'}-{digest}"
