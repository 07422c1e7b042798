"""Models that Python code builds: `module:function` that returns a Keras model or a tf.Module; and modules as such."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servegraph.answers.ask import short_message
from servegraph.errors import ExportRefused, InputError, TrainerError
from servegraph.export_serving_graph.signature_choice import choose_functions
from servegraph.trained.trainer import load_trainer

if TYPE_CHECKING:
    import tensorflow as tf


def build(name: str) -> Any:
    """Return what the function that `name` names returns: a Keras model or a tf.Module.

    Raises:
        InputError: there is no such function (code `NO_TRAINER`), or it returns something else (`NOT_A_MODEL`).
        TrainerError: it raised.
    """
    import keras
    import tensorflow as tf

    function = load_trainer(name)
    try:
        model = function()
    except Exception as exc:
        raise TrainerError(
            f"The function {name!r} raised {type(exc).__name__}: {exc}.",
            fix="Mend the function: it is called without arguments and returns the model.",
        ) from exc
    if not isinstance(model, keras.Model | tf.Module):
        raise InputError(
            f"The function {name!r} returned {type(model).__name__}, neither a keras.Model nor a tf.Module.",
            code="NOT_A_MODEL",
            fix="End it with `return model`.",
        )
    return model


def is_module(model: Any) -> bool:
    """Whether a model is a tf.Module and no Keras model."""
    import keras

    return not isinstance(model, keras.Model)


def save_module(module: tf.Module, path: Path, wanted: Mapping[str, str], source: str) -> None:
    """Write a tf.Module, or a loaded SavedModel, with the wanted functions as signatures.

    Raises:
        InputError: it is not clear which function serves (codes `WHICH_SIGNATURE`, `NO_SUCH_SIGNATURE`).
        ExportRefused: a function cannot be a signature (code `NO_SIGNATURE`).
    """
    import tensorflow as tf

    functions = _functions(module)
    chosen = choose_functions(functions, wanted, source)
    try:
        tf.saved_model.save(module, str(path), {new: functions[old] for new, old in chosen.items()})
    except (ValueError, TypeError, AssertionError) as exc:
        raise ExportRefused(
            f"A function of {source} cannot be a signature: {exc}",
            code="NO_SIGNATURE",
            fix="Let it take tensors and return a tensor or a dict of them; keep tables and variables as attributes.",
        ) from exc


def _functions(module: Any) -> dict[str, Any]:
    """Return the module's functions of one known input signature, by attribute name. Raises as `save_module`."""
    import tensorflow as tf

    found = {}
    for name in dir(module):
        if name.startswith("_") and name != "__call__":
            continue
        function = getattr(module, name, None)
        if isinstance(function, tf.types.experimental.PolymorphicFunction) and (concrete := _concrete(name, function)):
            found[name] = concrete
    return found


def _concrete(name: str, function: Any) -> Any:
    """Return the one concrete function, None where the inputs are not known or there are several."""
    if restored := getattr(function, "concrete_functions", None):  # of a loaded SavedModel
        return restored[0] if len(restored) == 1 else None
    if function.input_signature is None:
        return None
    try:
        return function.get_concrete_function()
    except Exception as exc:  # of code that anybody may have written
        raise ExportRefused(
            f"The function {name!r} raises when it is traced: {short_message(exc)}",
            code="NO_SIGNATURE",
            fix="Mend it, or take its input signature away if it is not for serving.",
        ) from exc
