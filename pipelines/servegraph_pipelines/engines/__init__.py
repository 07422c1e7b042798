"""Where a pipeline can run: one module and one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from servegraph.errors import InputError
from servegraph_pipelines.engines.runs import Engine
from servegraph_pipelines.resources import EngineName


@dataclass(frozen=True)
class EnginePlace:
    """Where an engine is. `project`, `region` and `pipeline_root` (gs://…) are Vertex AI's.

    `api_url` is the address of Kubeflow Pipelines; for Vertex AI that of an emulator or a private endpoint.
    """

    project: str | None = None
    region: str | None = None
    pipeline_root: str | None = None
    api_url: str | None = None
    namespace: str | None = None
    experiment: str = "Default"
    token_file: Path | None = None


def _vertex(place: EnginePlace) -> Engine:
    from servegraph_pipelines.engines.vertex import VertexEngine

    for what in ("project", "region", "pipeline_root"):
        if not getattr(place, what):
            option = what.replace("_", "-")
            raise InputError(
                f"Vertex AI needs a {option}.",
                code="NO_PLACE",
                fix=f"Give --{option}, or {what} in the place of a schedule.",
            )
    if not str(place.pipeline_root).startswith("gs://"):
        raise InputError(
            f"{place.pipeline_root!r} is no Cloud Storage.", code="NO_PLACE", fix="Give gs://bucket/prefix."
        )
    return VertexEngine(str(place.project), str(place.region), str(place.pipeline_root), place.api_url)


def _kfp(place: EnginePlace) -> Engine:
    from servegraph_pipelines.engines.kubeflow import KubeflowEngine

    if not place.api_url:
        fix = "Give --host, like https://kubeflow.example.com/pipeline."
        raise InputError("Kubeflow Pipelines needs its address.", code="NO_PLACE", fix=fix)
    return KubeflowEngine(
        place.api_url,
        namespace=place.namespace,
        experiment=place.experiment,
        pipeline_root=place.pipeline_root,
        token_file=place.token_file,
    )


# One row an engine.
ENGINES: dict[EngineName, Callable[[EnginePlace], Engine]] = {"vertex": _vertex, "kfp": _kfp}


def open_engine(name: EngineName, place: EnginePlace) -> Engine:
    """Return the engine at `place`; nothing is sent. Raises `InputError` (code `NO_PLACE`)."""
    return ENGINES[name](place)
