"""Which distribution strategy a training process runs under."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from servegraph.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


def choose_strategy(environment: Mapping[str, str]) -> tf.distribute.Strategy:
    """Return the strategy for this process: `TF_CONFIG` → several workers, several GPUs → mirrored, else none.

    Must run before anything else touches TensorFlow's runtime: collective ops need to be set up first.

    Raises:
        InputError: `TF_CONFIG` is not JSON (code `BAD_TF_CONFIG`).
    """
    import tensorflow as tf

    text = environment.get("TF_CONFIG", "")
    try:
        workers = json.loads(text).get("cluster", {}) if text else {}
    except (ValueError, AttributeError) as exc:
        raise InputError(
            f"TF_CONFIG is not a JSON object: {text[:200]!r}.",
            code="BAD_TF_CONFIG",
            fix="Unset it or mend it.",
        ) from exc
    if sum(len(addresses) for job, addresses in workers.items() if job in ("chief", "worker")) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes what all workers made: the chief, else worker 0, else the only one there is."""
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict() if resolver is not None else {}
    if not jobs:
        return True
    first = ("chief", 0) if "chief" in jobs else ("worker", 0)
    return (resolver.task_type, resolver.task_id) == first
