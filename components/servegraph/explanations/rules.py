"""Can a platform explain the predictions of a model, by which methods, until when, and why not.

Sources: "Configure feature-based explanations" and the overview of Vertex Explainable AI, which announces its end;
ExplanationMetadata in the discovery document of aiplatform v1; for AI Platform
https://cloud.google.com/ai-platform/prediction/docs/ai-explanations/using-feature-attributions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Literal, NamedTuple, get_args

from servegraph.savedmodel.graph import Signature, TensorInfo

Method = Literal["sampled-shapley", "integrated-gradients", "xrai"]
METHODS: tuple[Method, ...] = get_args(Method)

VERTEX_END = date(2027, 3, 16)
AI_PLATFORM_END = date(2025, 1, 31)
NUMERIC = ("float", "int", "uint", "bfloat", "bool")  # what the names of numeric types begin with
OF_A_ROUTINE = "what the routine takes is in no file, so nothing can be made of it."  # it answers in place of the graph
_PREBUILT = "/vertex-ai/prediction/"


class Answer(NamedTuple):
    """Whether a platform can explain a model's predictions, why or why not, by which methods and until when."""

    possible: bool
    reason: str
    methods: tuple[Method, ...] = ()
    until: date | None = None


def explainable(
    platform: str, signature: Signature | None, tf_version: str, today: date, image: str | None = None
) -> Answer:
    """Return whether `platform` can explain what `signature` of a model of TensorFlow `tf_version` answers.

    `image` is what serves it on Vertex AI; None is a container that is not Google's, such as servegraph's own.
    """
    if platform not in ("ai-platform", "vertex"):
        return Answer(False, "it has no explanations of its own for TensorFlow models.")
    if signature is None:
        return Answer(False, "there is no default signature to explain.")
    if not numeric(signature.outputs):
        return Answer(False, "no output is numeric; attributions are of a number.")
    if not numeric(signature.inputs):
        return Answer(False, "no input is numeric; serialized inputs hide the features.")
    if platform == "ai-platform":
        return _ai_platform(signature, tf_version, today)
    if today >= VERTEX_END:
        return Answer(False, f"Vertex Explainable AI ended on {VERTEX_END}.", until=VERTEX_END)
    until = f"Vertex Explainable AI, which ends on {VERTEX_END}, takes one output key on a shared public endpoint"
    if image is not None and is_prebuilt(image):
        return Answer(True, f"{until}.", _methods(signature), VERTEX_END)
    reason = f"{until}; of a container that is not a prebuilt one of Google's by sampled Shapley alone."
    return Answer(True, reason, ("sampled-shapley",), VERTEX_END)


def is_prebuilt(image: str) -> bool:
    """Whether a container image is one of Google's that serve a SavedModel and nothing else."""
    return _PREBUILT in image


def numeric(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Return the names of the numeric ones."""
    return [name for name, info in tensors.items() if info.dtype.startswith(NUMERIC)]


def _methods(signature: Signature) -> tuple[Method, ...]:
    """Gradients need inputs that can be differentiated by, and regions of an image need an image."""
    infos = list(signature.inputs.values())
    if not all(info.dtype.startswith(("float", "bfloat")) for info in infos):
        return ("sampled-shapley",)
    is_image = len(infos) == 1 and infos[0].shape is not None and len(infos[0].shape) == 4
    return METHODS if is_image else ("sampled-shapley", "integrated-gradients")


def _ai_platform(signature: Signature, tf_version: str, today: date) -> Answer:
    """The last documented rule; the service ended with the platform."""
    found = re.match(r"(\d+)\.(\d+)", tf_version)
    version = (int(found[1]), int(found[2])) if found else None
    said = "TensorFlow 1.15 and 2.1 to 2.11 were supported"
    if version != (1, 15) and (version is None or not (2, 1) <= version <= (2, 11)):
        return Answer(False, f"{said}, this model is of {tf_version or 'none'}.", until=AI_PLATFORM_END)
    if today >= AI_PLATFORM_END:
        return Answer(False, f"{said}, which it meets, but the service was shut down.", until=AI_PLATFORM_END)
    return Answer(True, f"{said}.", _methods(signature), AI_PLATFORM_END)
