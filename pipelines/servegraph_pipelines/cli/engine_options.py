"""The options that say where a pipeline runs and what is chosen for it, shared by the verbs that send one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from servegraph.errors import InputError
from servegraph_pipelines.cli.local_paths import FILE
from servegraph_pipelines.engines import ENGINES, EnginePlace
from servegraph_pipelines.images import ImageChoice, read_lock

Command = Callable[..., Any]

# One row an option that says where an engine is: its flags, its type, what it is for.
PLACES: tuple[tuple[tuple[str, ...], Any, str], ...] = (
    (("--project",), str, "Google Cloud project, for vertex."),
    (("--region",), str, "Region, like us-central1, for vertex."),
    (("--pipeline-root",), str, "Where artifacts go: gs://bucket/prefix."),
    (("--host", "--api-url", "api_url"), str, "Address of Kubeflow Pipelines; for vertex that of a private endpoint."),
    (("--namespace",), str, "Kubernetes namespace, for kfp with several users."),
    (("--token-file",), FILE, "File with the token for kfp; without it the SDK's own configuration counts."),
)


def engine_options(function: Command, *, local: bool = False) -> Command:
    """Add `--engine` and the options of `PLACES`, which arrive as `engine_name` and `place`.

    With `local` the engine may be this machine, and is that unless told otherwise.
    """

    @functools.wraps(function)
    def with_place(experiment: str, **options: Any) -> Any:
        names = ("project", "region", "pipeline_root", "api_url", "namespace", "token_file")
        values = {name: options.pop(name) for name in names}
        return function(place=EnginePlace(**values, experiment=experiment), **options)

    command = click.option("--experiment", default="Default", help="Experiment of the run, for kfp.")(with_place)
    for flags, kind, what in reversed(PLACES):
        command = click.option(*flags, type=kind, help=what)(command)
    if local:
        kinds = click.Choice(["local", *ENGINES])
        option = click.option(
            "--engine", "engine_name", type=kinds, default="local", show_default=True, help="Where it ran."
        )
    else:
        kinds = click.Choice(list(ENGINES))
        option = click.option("--engine", "engine_name", type=kinds, required=True, help="Where it runs.")
    return option(command)


def image_options(function: Command) -> Command:
    """Add `--registry`, `--tag` and `--image-lock`, which arrive as one `images`."""

    @functools.wraps(function)
    def with_images(registry: str | None, tag: str | None, image_lock: Path | None, **options: Any) -> Any:
        lock = read_lock(image_lock) if image_lock else {}
        return function(images=ImageChoice(registry, tag, lock), **options)

    command = click.option(
        "--image-lock", type=FILE, help="File with the digest of each image, as Cloud Build writes it."
    )(with_images)
    command = click.option("--tag", help="Tag of servegraph's images.  [default: the version]")(command)
    return click.option("--registry", help="Registry of servegraph's images, like us-docker.pkg.dev/P/R.")(command)


def pairs(texts: tuple[str, ...], what: str) -> dict[str, str]:
    """Return K=V texts as a dict. Raises `InputError` (code `BAD_LABEL`)."""
    split = [text.partition("=") for text in texts]
    for text, (key, found, _) in zip(texts, split, strict=True):
        if not key or not found:
            raise InputError(f"{text!r} is no {what}.", code="BAD_LABEL", fix="Write it like team=fraud.")
    return {key: value for key, _, value in split}
