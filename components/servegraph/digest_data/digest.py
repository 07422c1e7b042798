"""What a cache may key a training by."""

from __future__ import annotations

from collections.abc import Sequence

from servegraph.data.digest import data_digest, unlike_any
from servegraph.errors import ServegraphError
from servegraph.trained.trainer import comes_along


def training_digest(files: Sequence[str], trainer: str) -> tuple[str, str]:
    """Return the digest of the files' content, and why it is one that never comes again; empty where it is not.

    Files that cannot be read are no error: the training says what is wrong with them, or reads them elsewhere.
    """
    if not comes_along(trainer):
        return unlike_any(), "what a trainer of your own reads is not known."
    try:
        return data_digest(files), ""
    except ServegraphError as error:
        return unlike_any(), error.message
