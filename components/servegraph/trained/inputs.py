"""How a Keras model takes its inputs: by name in a dict, as a list in order, or one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def symbolic_inputs(model: keras.Model) -> list[keras.KerasTensor]:
    """Return the model's symbolic inputs, empty for a model that was never built on any."""
    try:
        return list(model.inputs or [])
    except (AttributeError, ValueError):
        return []


def arrange(model: keras.Model, features: Mapping[str, Any]) -> Any:
    """Return the features (by input name; others are passed over) as `model(...)` takes them.

    Raises:
        KeyError: an input of the model is not among the features.
    """
    tensors = symbolic_inputs(model)
    structure = getattr(model, "_inputs_struct", None)
    if isinstance(structure, dict):
        return {key: features[tensor.name] for key, tensor in structure.items()}
    if not tensors:
        return dict(features)
    return features[tensors[0].name] if len(tensors) == 1 else [features[tensor.name] for tensor in tensors]
