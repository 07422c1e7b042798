"""What a run calls a model of one's own data where nobody named it: after the data.

Under the pipelines' default the models of any two data sets would be versions of one.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from servegraph.data import census
from servegraph.storage.directory import local_path
from servegraph_pipelines.foresight import OWN
from servegraph_pipelines.specification import Specification

_LONGEST = 128  # see `check_model_name`


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
    """Return the name of a file up to its first dot, of a pattern that of the folder above, as a valid model name."""
    local = local_path(data)
    path: PurePath = PurePosixPath(data.partition("://")[2])
    if local is not None:
        path = Path(os.path.abspath(local))  # noqa: PTH100  of `..` Path.absolute has no name
    if local is None or not local.exists():
        path = next(part for part in (path, *path.parents) if not glob.has_magic(str(part)))
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.partition(".")[0]).strip("-_")[:_LONGEST] or "model"
