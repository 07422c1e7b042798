"""Load a SavedModel's signatures with TensorFlow and call them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# tf.compat.v1.saved_model.load is this loader with a deprecation warning; TF Serving has no other.
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from servegraph.errors import ModelError

Loader = Literal["v2", "session"]
_LONGEST = 300  # characters of TensorFlow's own message

Arrays = Mapping[str, NDArray[Any]]


class Servable:
    """The signatures of one MetaGraph, loaded with `tf.saved_model.load` or in a session as TF Serving does."""

    def __init__(self, path: Path, *, tags: tuple[str, ...] = ("serve",), loader: Loader = "v2") -> None:
        """Load `path`.

        Raises:
            ModelError: TensorFlow cannot load it (code `CANNOT_LOAD`).
        """
        self._path = path
        try:
            if loader == "v2":
                loaded = tf.saved_model.load(str(path), tags=list(tags))
                self._keep = loaded  # signatures hold their variables weakly
                self._functions = dict(loaded.signatures)
            else:
                self._session = tf.compat.v1.Session(graph=tf.Graph())
                with self._session.graph.as_default():
                    graph = SavedModelLoader(str(path)).load(self._session, list(tags))
                self._functions = {
                    name: _session_call(self._session, definition)
                    for name, definition in graph.signature_def.items()
                    if not name.startswith("__saved_model")
                }
        except (
            ValueError,
            RuntimeError,
            OSError,
            KeyError,
            TypeError,
            AttributeError,
            tf.errors.OpError,
        ) as exc:
            raise ModelError(
                f"TensorFlow {tf.__version__} cannot load {path}: {_short(exc)}",
                code="CANNOT_LOAD",
                fix="Run `servegraph inspect` on it: it names damage, missing files and unknown ops.",
            ) from exc

    @property
    def signatures(self) -> list[str]:
        """The names of the signatures."""
        return sorted(self._functions)

    def __call__(self, signature: str, request: Arrays) -> dict[str, NDArray[Any]]:
        """Answer one request.

        Raises:
            ModelError: the call failed (code `CANNOT_CALL`).
        """
        try:
            tensors = {name: tf.constant(value) for name, value in request.items()} if self._is_v2 else request
            answers = self._functions[signature](**tensors)
            return {name: np.asarray(value) for name, value in answers.items()}
        except (ValueError, TypeError, RuntimeError, tf.errors.OpError) as exc:
            raise ModelError(
                f"The signature {signature!r} of {self._path} fails: {_short(exc)}",
                code="CANNOT_CALL",
                fix="Give samples that the model can answer.",
            ) from exc

    def __enter__(self) -> Servable:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Release what the session holds."""
        if not self._is_v2:
            self._session.close()

    @property
    def _is_v2(self) -> bool:
        return not hasattr(self, "_session")


def _short(error: Exception) -> str:
    """Name what TensorFlow says, without its pages of graph traceback."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text if len(text) <= _LONGEST else text[:_LONGEST] + ' …'}"


def _session_call(session: tf.compat.v1.Session, definition: Any) -> Any:
    outputs = {name: info.name for name, info in definition.outputs.items()}

    def call(**request: Any) -> dict[str, Any]:
        feeds = {definition.inputs[name].name: value for name, value in request.items()}
        answers: dict[str, Any] = session.run(outputs, feeds)
        return answers

    return call
