"""Google's prebuilt TensorFlow serving images: which TensorFlow they have, and until when they may be used."""

from __future__ import annotations

import re
from datetime import date

from servegraph.errors import DeployRefused
from servegraph.explanations.rules import is_prebuilt

# Availability ends, by TensorFlow version; older ones are past it. After that day no endpoint can be created with it.
# Source: docs.cloud.google.com/gemini-enterprise-agent-platform/machine-learning/predictions/pre-built-containers,
# 2026-08-22.
ENDS = {(2, 15): date(2027, 1, 14), (2, 14): date(2027, 1, 14)}
_IMAGE = re.compile(r"(?:us|europe|asia)-docker\.pkg\.dev/vertex-ai/prediction/tf(\d)-(cpu|gpu)\.(\d)-(\d+):latest")


def check_image(image: str, model_version: str, today: date, *, on_gpu: bool = False) -> None:
    """Refuse a prebuilt image that is at its end, leaves a GPU idle, or is too old for TensorFlow `model_version`.

    TensorFlow promises that newer versions load what older ones saved, and not the reverse. Other images pass.

    Raises:
        DeployRefused: it is (codes `IMAGE_ENDED`, `IMAGE_WITHOUT_GPU`, `IMAGE_TOO_OLD`, `UNKNOWN_IMAGE`).
    """
    if not is_prebuilt(image):
        return
    found = _IMAGE.fullmatch(image)
    fix = "Leave --image out for servegraph's own serving image."
    if found is None:
        raise DeployRefused(f"{image} is not a prebuilt TensorFlow image.", code="UNKNOWN_IMAGE", fix=fix)
    version = (int(found[3]), int(found[4]))
    ends = ENDS.get(version, date.min)
    if ends <= today:
        when = f" on {ends}" if ends != date.min else ""
        raise DeployRefused(f"The availability of {image} ended{when}.", code="IMAGE_ENDED", fix=fix)
    if on_gpu and found[2] == "cpu":
        raise DeployRefused(
            f"{image} uses no GPU, and the machine has one.",
            code="IMAGE_WITHOUT_GPU",
            fix=f"Give {image.replace('-cpu.', '-gpu.')}, or a machine without.",
        )
    saved_by = re.match(r"(\d+)\.(\d+)", model_version)
    if saved_by is not None and (int(saved_by[1]), int(saved_by[2])) > version:
        raise DeployRefused(
            f"{image} has TensorFlow {version[0]}.{version[1]}, and the model was saved by {model_version}.",
            code="IMAGE_TOO_OLD",
            fix=fix,
        )
