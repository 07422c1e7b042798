"""The digest of settings, and whether data and settings are those of the last training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from servegraph.errors import InputError
from servegraph.estimator import estimator_function
from servegraph.retraining.history import Training


@dataclass(frozen=True)
class Seen:
    """What is there now."""

    data_digest: str
    settings_digest: str
    is_live: bool


def settings_digest(settings: Sequence[Any]) -> str:
    """Return the SHA-256 over JSON values."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def require_warm_start(trainer: str, *, warm_start: bool) -> None:
    """Raise InputError (code `NO_WARM_START`) where a training that cannot start from an earlier one shall do so."""
    if warm_start and estimator_function(trainer):
        raise InputError(
            "An Estimator does not start from the model of an earlier run.",
            code="NO_WARM_START",
            fix="Leave out the parameter `warm_start`.",
        )


def decide(now: Seen, last: Training | None, *, force: bool = False) -> tuple[str, str]:
    """Return `train` or `skip`, and why."""
    if force:
        return "train", "it is forced."
    if last is None:
        return "train", "nothing was trained before."
    if now.data_digest != last.data_digest:
        return "train", "the data has changed."
    if now.settings_digest != last.settings_digest:
        return "train", "the settings have changed."
    if last.deployed and not now.is_live:
        return "train", "the version that was deployed is gone."
    outcome = "its model was deployed" if last.deployed else "its model was not good enough"
    return "skip", f"data and settings are those of the last training, and {outcome}."
