"""Which paths a step on an engine has: none of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servegraph.data import census
from servegraph.errors import InputError
from servegraph.storage.directory import local_path
from servegraph.trained.trainer import source_file
from servegraph_pipelines.resources import EngineName

DATA = ("data", "eval_data", "schema")  # parameters of `train` that name what it reads


def require_seen(engine: EngineName, name: str, uri: str | None) -> None:
    """Refuse a path that no step of the engine has, or that is gone with it.

    An absolute path may be that of a volume on a cluster; on Vertex AI only what is below /gcs outlives a step.

    Raises:
        InputError: it is such a path (code `NOT_FOR_ENGINE`).
    """
    path = local_path(uri) if uri else None
    if path is None or (path.is_relative_to("/gcs") if engine == "vertex" else path.is_absolute()):
        return
    where, also = ("on Vertex AI", "/gcs/bucket/…") if engine == "vertex" else ("on a cluster", "a volume's path")
    what = f"{name} is {uri!r}, a path that the step does not have {where}."
    raise InputError(what, code="NOT_FOR_ENGINE", fix=f"Give gs://bucket/…, or {also}.")


def require_training_seen(engine: EngineName, given: Mapping[str, Any]) -> None:
    """Refuse parameters of `train` that name what no step has; a trainer by its full path may be in the image.

    Raises:
        InputError: one does (code `NOT_FOR_ENGINE`).
    """
    for name in DATA:
        if given.get(name) != census.NAME:
            require_seen(engine, name, given.get(name))
    trainer = source_file(given.get("trainer") or "")
    path = local_path(trainer) if trainer else None
    if path is not None and not (path.is_absolute() and not path.exists()):
        require_seen(engine, "trainer", trainer)
