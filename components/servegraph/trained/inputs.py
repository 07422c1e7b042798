"""How a Keras model takes its inputs and gives its outputs: in dicts by name, in lists in order, or one tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from servegraph.data.schema import input_name


def symbolic_inputs(model: keras.Model) -> Any:
    """Return the model's symbolic inputs in the dicts and lists it takes them in; None if it was never built on any."""
    try:
        flat = list(model.inputs or [])
    except (AttributeError, ValueError):
        flat = []
    if not flat:
        return None
    structure = getattr(model, "_inputs_struct", flat)
    return structure[0] if isinstance(structure, list | tuple) and len(structure) == 1 else structure


def input_names(inputs: Any) -> list[str]:
    """Return the name of each of the inputs in a request, in the order of `keras.tree.flatten`."""
    if inputs is None:
        return []
    names = leaf_names(inputs, [tensor.name for tensor in keras.tree.flatten(inputs)])
    return _unique([input_name(name) for name in names])


def leaf_names(structure: Any, own: Sequence[str]) -> list[str]:
    """Return another name for each leaf: the keys of the dicts it is in, joined; outside of dicts its own."""
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    keys = ["_".join(key for key in path if isinstance(key, str)) for path in paths]
    return _unique([key or name for key, name in zip(keys, own, strict=True)])


def arrange(inputs: Any, features: Mapping[str, Any]) -> Any:
    """Return the features (by the names of `input_names`; others are passed over) as the model takes them.

    A model of which no symbolic inputs are known takes them all, in a dict.

    Raises:
        KeyError: an input of the model is not among the features.
    """
    if inputs is None:
        return dict(features)
    return keras.tree.pack_sequence_as(inputs, [features[name] for name in input_names(inputs)])


def _unique(names: Sequence[str]) -> list[str]:
    """Number the names that come again, as Keras 2 does: layer, layer_1."""
    given: Counter[str] = Counter()
    found: list[str] = []
    for name in names:
        unique = name
        while unique in found or (unique != name and unique in names):
            given[name] += 1
            unique = f"{name}_{given[name]}"
        found.append(unique)
    return found
