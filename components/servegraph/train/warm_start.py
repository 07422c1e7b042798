"""Start from the weights of an earlier model, as far as it has the same layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from servegraph.errors import InputError


def warm_start(model: keras.Model, file: Path) -> list[str]:
    """Give `model` the weights of the Keras file for layers of equal name and shape, and return their names.

    Embeddings of words are taken word by word: the vocabulary of new data has its words in another order. A layer
    whose shape differs, or whose ids mean something else, keeps its fresh weights.

    Raises:
        InputError: the file is no Keras model (code `BAD_WARM_START`).
    """
    try:
        before = keras.models.load_model(file, compile=False)
    except (ValueError, OSError, TypeError) as exc:
        what = f"The model to start from, {file}, cannot be loaded: {str(exc)[:300]}"
        raise InputError(what, code="BAD_WARM_START", fix="Give a .keras file that `train` wrote.") from exc
    old_layers = {layer.name: layer for layer in before.layers}
    taken = []
    for layer in model.layers:
        old = old_layers.get(layer.name)
        if old is None or type(old) is not type(layer) or not layer.weights:
            continue
        if isinstance(layer, keras.layers.Embedding):
            weights = _embedding(layer, model, old, before)
        else:
            weights = old.get_weights() if _shapes(old) == _shapes(layer) else None
        if weights is not None:
            layer.set_weights(weights)
            taken.append(layer.name)
    return taken


def _shapes(layer: Any) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]


def _embedding(layer: Any, model: keras.Model, old: Any, before: keras.Model) -> list[NDArray[Any]] | None:
    """Return the rows of an embedding for the ids that the new model gives; None where they cannot be told."""
    if layer.output_dim != old.output_dim:
        return None
    new_ids, old_ids = (_ids_of(part, layer.name) for part in (model, before))
    if new_ids is None or old_ids is None:
        return None
    if isinstance(new_ids, dict) and isinstance(old_ids, dict):
        rows, old_rows = np.array(layer.get_weights()[0]), old.get_weights()[0]
        for word, index in new_ids.items():
            if word in old_ids:
                rows[index] = old_rows[old_ids[word]]
        return [rows]
    return list(old.get_weights()) if new_ids == old_ids else None


def _ids_of(model: keras.Model, embedding: str) -> dict[Any, int] | str | None:
    """Return what the ids of an embedding mean: the word of each, or the settings of the layer that makes them."""
    name = "ids-" + embedding.split("-", 1)[1]
    layer = next((layer for layer in model.layers if layer.name == name), None)
    if layer is None:
        return None
    if hasattr(layer, "get_vocabulary"):
        return {str(word): index for index, word in enumerate(layer.get_vocabulary())}
    settings = layer.get_config()
    return str(sorted((key, str(value)) for key, value in settings.items() if key not in ("name", "dtype")))
