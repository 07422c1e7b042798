"""What the training of an Estimator may be told, judged without TensorFlow: before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from servegraph.errors import InputError
from servegraph.hyperparameter_limits import COUNT, POSITIVE, SEED, Limits, limited

# As the sample's README trains in the cloud; its local 1000 steps reach 0.82.
_TRAINING: Mapping[str, tuple[int, Limits]] = {
    "train_steps": (5000, COUNT),
    "batch_size": (40, COUNT),
    "seed": (1, SEED),
}
_BUILT_IN: Mapping[str, tuple[float, Limits]] = {
    "embedding_size": (8, COUNT),
    "first_layer_size": (100, COUNT),
    "num_layers": (4, COUNT),
    "scale_factor": (0.7, POSITIVE),
}


def defaults(*, built_in: bool) -> dict[str, Any]:
    """Return what the training of an Estimator does where nothing is given; the seed is that of the request."""
    known = {**_TRAINING, **_BUILT_IN} if built_in else _TRAINING
    return {name: default for name, (default, _) in known.items() if name != "seed"}


class Training(NamedTuple):
    """How an Estimator is trained; `rest` is for the function that makes it."""

    train_steps: int
    batch_size: int
    seed: int
    rest: dict[str, Any]


def parse_training(given: Mapping[str, Any]) -> Training:
    """Return what any Estimator takes, and the rest.

    Raises:
        InputError: a value of the wrong kind or range (code `BAD_HYPERPARAMETER`).
    """
    rest = {name: value for name, value in given.items() if name not in _TRAINING}
    return Training(**_limited(given, _TRAINING), rest=rest)


def parse_built_in(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the built-in Estimator takes.

    Raises:
        InputError: an unknown name, or a value of the wrong kind or range (code `BAD_HYPERPARAMETER`).
    """
    unknown = sorted(set(given) - set(_BUILT_IN))
    if unknown:
        raise InputError(
            f"The built-in Estimator has no hyperparameter {', '.join(unknown)}.",
            code="BAD_HYPERPARAMETER",
            fix=f"It has train_steps, batch_size, {', '.join(_BUILT_IN)}.",
        )
    return _limited(given, _BUILT_IN)


def _limited(given: Mapping[str, Any], known: Mapping[str, tuple[Any, Limits]]) -> dict[str, Any]:
    return {name: limited(name, given.get(name, default), limits, default) for name, (default, limits) in known.items()}
