"""Which images a run uses: the public ones that pipelines are compiled with, or those of a registry of one's own.

Cloud Build writes one lock file, JSON: the name of each image to its reference with the digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servegraph import _image
from servegraph.errors import InputError
from servegraph.estimator import PREFIX, estimator_function
from servegraph_pipelines.bindings import tasks_of
from servegraph_pipelines.specification import Specification

ESTIMATOR_STEPS = ("train", "export-serving-graph")  # which run TensorFlow 2.15 for one
DEPLOY_STEP = "deploy-version"
_TENSORFLOW, _SLIM = "/python-tensorflow", "/python-slim"
_PINNED = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_REGISTRY = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9][a-z0-9._-]*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class ImageChoice:
    """Where the images of servegraph come from: the references of a lock file, or another registry or tag."""

    registry: str | None = None
    tag: str | None = None
    lock: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the form. Raises `InputError` (code `BAD_IMAGE`)."""
        if self.lock and (self.registry or self.tag):
            raise InputError(
                "An image lock and a registry or a tag are given.", code="BAD_IMAGE", fix="Give one of them."
            )
        rows = (
            (
                "registry",
                self.registry,
                _REGISTRY,
                "Write host and path in small letters, like us-docker.pkg.dev/my-project/my-repository.",
            ),
            ("tag", self.tag, _TAG, "Write letters, digits, '_', '.' and '-', like 1.2.0."),
        )
        for what, value, form, fix in rows:
            if value is not None and not form.fullmatch(value):
                raise InputError(f"{value!r} is no {what} of images.", code="BAD_IMAGE", fix=fix)

    def of(self, image: str) -> str:
        """Return the image to use for `image`; other people's images stay as they are.

        Raises:
            InputError: it is not in the lock file (code `NOT_IN_LOCK`).
        """
        prefix = f"{_image.REGISTRY}/"
        if not image.startswith(prefix):
            return image
        name, bound_to = _split(image.removeprefix(prefix))
        if self.lock:
            if name not in self.lock:
                fix = f"It has {', '.join(sorted(self.lock))}; build the image and write the lock file again."
                raise InputError(f"The lock file has no image {name}.", code="NOT_IN_LOCK", fix=fix)
            return self.lock[name]
        return f"{self.registry or _image.REGISTRY}/{name}{f':{self.tag}' if self.tag else bound_to}"

    def apply(self, specification: Specification) -> Specification:
        """Return the pipeline with these images.

        Raises:
            InputError: an image is not in the lock file (code `NOT_IN_LOCK`), or none is one of servegraph's public
                ones or already the chosen one (`NO_PUBLIC_IMAGE`).
        """
        images = specification.images().values()
        if images and not any(image.startswith(f"{_image.REGISTRY}/") or self._is_of(image) for image in images):
            raise _nothing_to_choose(specification, "A registry, tag or image lock")
        return specification.with_images({image: self.of(image) for image in images})

    def _is_of(self, image: str) -> bool:
        """Return whether it is where it is to come from: with no choice any image is."""
        if self.lock:
            return image in self.lock.values()
        start, end = f"{self.registry}/" if self.registry else "", f":{self.tag}" if self.tag else ""
        return image.startswith(start) and image.endswith(end)


def _split(image: str) -> tuple[str, str]:
    """Return the name of an image and what binds it: `:TAG` or `@DIGEST`."""
    name = re.split("[:@]", image, maxsplit=1)[0]
    return name, image.removeprefix(name)


def _nothing_to_choose(specification: Specification, what: str) -> InputError:
    images = ", ".join(sorted(set(specification.images().values())))
    return InputError(
        f"{what} would choose nothing in the pipeline {specification.name}: its images are {images}.",
        code="NO_PUBLIC_IMAGE",
        fix=f"Compile it from its source, whose images are those of {_image.REGISTRY}, or leave the option out.",
    )


def for_estimators(specification: Specification) -> Specification:
    """Return the pipeline with the image that has TensorFlow 2.15, whatever its trainer will be.

    Raises:
        InputError: it trains and exports in other images than the public ones (code `NO_PUBLIC_IMAGE`).
    """
    chosen = for_trainer(specification, {"trainer": PREFIX})
    if _image.ESTIMATOR not in chosen.images().values():
        raise _nothing_to_choose(specification, "TensorFlow 2.15 for Estimators")
    return chosen


def for_trainer(specification: Specification, parameters: Mapping[str, Any]) -> Specification:
    """Return the pipeline with the image that has TensorFlow 2.15 where its trainer is an Estimator's.

    A pipeline that has other images than the public names is left as it is: then those choose.
    """
    if estimator_function(str(parameters.get("trainer", ""))) is None:
        return specification
    return specification.with_images({_image.TENSORFLOW: _image.ESTIMATOR}, ESTIMATOR_STEPS)


def for_local_target(specification: Specification, parameters: Mapping[str, Any]) -> Specification:
    """Return the pipeline with the image that has TensorFlow where it deploys to the target local.

    That asks the version through a server, which the slim image does not have. It is the image of the pipeline's other
    steps, or else the one beside the slim image; that of one bound to its digest is not known, and other people's stay.
    """
    deploys = [task for task in tasks_of(specification, parameters) if task.component == DEPLOY_STEP]
    if not any(task.inputs.get("target") == "local" for task in deploys):
        return specification
    images = specification.images().values()
    whole = next((image for image in images if _TENSORFLOW in image), None)
    slim = {image for image in images if _SLIM in image and (whole or "@" not in image)}
    wanted = {image: whole or image.replace(_SLIM, _TENSORFLOW) for image in slim}
    return specification.with_images(wanted, [DEPLOY_STEP])


def read_lock(path: Path) -> dict[str, str]:
    """Return the references of a lock file by name of image.

    Raises:
        InputError: it cannot be read, or a reference has no digest (code `BAD_IMAGE_LOCK`).
    """
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        fix = "Give the file that Cloud Build wrote (cloudbuild.yaml), or a registry and a tag in its place."
        raise InputError(f"The image lock {path} cannot be read: {exc}.", code="BAD_IMAGE_LOCK", fix=fix) from exc
    if not isinstance(lock, dict) or not lock:
        raise InputError(
            f"{path} names no images.", code="BAD_IMAGE_LOCK", fix='Write {"NAME": "REGISTRY/NAME@sha256:…"}.'
        )
    for name, reference in lock.items():
        if not isinstance(reference, str) or not _PINNED.fullmatch(reference):
            raise InputError(
                f"The image {name} in {path} is {reference!r}, which is not bound to a digest.",
                code="BAD_IMAGE_LOCK",
                fix="Write REGISTRY/NAME@sha256: and 64 hexadecimal digits.",
            )
    return lock
