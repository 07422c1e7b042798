"""Load a SavedModel's signatures with TensorFlow and call them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# tf.compat.v1.saved_model.load is this loader with a deprecation warning; TF Serving has no other.
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from servegraph import storage, text_operations
from servegraph.answers.composites import sparse_parts
from servegraph.errors import ModelError
from servegraph.patience import waiting_for
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.storage.local import require_files

Loader = Literal["v2", "session"]
LOADERS: tuple[Loader, ...] = ("session", "v2")  # TF Serving's way first
_LONGEST = 300  # characters of TensorFlow's own message
_CAUSE = re.compile(r"^Graph execution error.*\n(?P<message>[^\n]+)\n\t \[\[\{\{node (?P<node>[^}]+)\}\}", re.DOTALL)

Arrays = Mapping[str, NDArray[Any]]
Call = Callable[[dict[str, Any]], dict[str, Any]]


class Servable:
    """The signatures of one MetaGraph, loaded with `tf.saved_model.load` or in a session as TF Serving does."""

    def __init__(self, path: Path, *, tags: tuple[str, ...] = ("serve",), loader: Loader = "v2") -> None:
        """Load `path`.

        Raises:
            ModelError: TensorFlow cannot load it (code `CANNOT_LOAD`).
            StorageError: there is a pipe or a device in it, at which TensorFlow would wait for ever.
        """
        text_operations.register()
        require_files(path)
        self._path, self._tags, self._loader = path, tags, loader
        self._definitions: Mapping[str, Any] = {}
        try:
            with waiting_for(f"TensorFlow, which loads {path} ({loader} loader, tags {list(tags)})"):
                self._functions = self._load_v2() if loader == "v2" else self._load_session()
        except Exception as exc:  # of a model that anybody may have written; TensorFlow has kinds of its own
            raise ModelError(
                f"TensorFlow {tf.__version__} cannot load {path}: {short_message(exc)}",
                code="CANNOT_LOAD",
                fix="Run `servegraph inspect` on it: it names damage, missing files and unknown ops.",
            ) from exc

    def _load_v2(self) -> dict[str, Call]:
        loaded = tf.saved_model.load(str(self._path), tags=list(self._tags))
        self._keep = loaded  # signatures hold their variables weakly
        return {name: _eager_call(function) for name, function in loaded.signatures.items()}

    def _load_session(self) -> dict[str, Call]:
        # A graph for GPUs is asked on the CPU as well; TensorFlow Serving would refuse it there.
        config = tf.compat.v1.ConfigProto(allow_soft_placement="gpu" in self._tags)
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default():
            graph = SavedModelLoader(str(self._path)).load(self._session, list(self._tags))
        self._definitions = graph.signature_def
        return {
            name: _session_call(self._session, definition)
            for name, definition in graph.signature_def.items()
            if not name.startswith("__saved_model")
        }

    @property
    def signatures(self) -> list[str]:
        """The names of the signatures."""
        return sorted(self._functions)

    def computes_same(self, one: str, other: str) -> bool:
        """Whether two signatures name the same tensors of the graph."""
        if not self._definitions:  # of a model loaded as TF2 does
            graph = read_saved_model(storage.open_dir(self._path))
            self._definitions = next(m.signatures for m in graph.meta_graphs if set(m.tags) == set(self._tags))
        definitions = [self._definitions.get(name) for name in (one, other)]
        return None not in definitions and definitions[0] == definitions[1]

    def __call__(self, signature: str, request: Arrays) -> dict[str, NDArray[Any]]:
        """Answer one request. A ragged or sparse output is answered as its parts, `name/0`, `name/1`, ….

        Raises:
            ModelError: the call failed, or there is no such signature or input (code `CANNOT_CALL`).
        """
        try:
            if signature not in self._functions:
                raise ValueError(f"there is none; the model has {self.signatures}")
            with waiting_for(f"the answer of signature {signature!r} of {self._path} ({self._loader} loader)"):
                return {name: _as_array(value) for name, value in self._functions[signature](dict(request)).items()}
        except (ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError, tf.errors.OpError) as exc:
            raise ModelError(
                f"The signature {signature!r} of {self._path} fails: {short_message(exc)}",
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


def short_message(error: Exception) -> str:
    """Name what TensorFlow says, without its pages of graph traceback: of those the message and the node."""
    text = str(error).strip()
    if cause := _CAUSE.search(text):
        text = f"{cause['message']} (node {cause['node']})"
    return f"{type(error).__name__}: {text if len(text) <= _LONGEST else text[:_LONGEST] + ' …'}"


def _eager_call(function: Any) -> Call:
    taken = function.structured_input_signature[1]

    def call(request: dict[str, Any]) -> dict[str, Any]:
        _require(request, taken, [name for name, spec in taken.items() if not isinstance(spec, tf.TensorSpec)])
        answers = function(**{name: tf.constant(value) for name, value in request.items()})
        return {
            part: value
            for name, answer in answers.items()
            for part, value in _parts(name, tf.nest.flatten(answer, expand_composites=True))
        }

    return call


def _session_call(session: tf.compat.v1.Session, definition: Any) -> Call:
    fed = fed_tensors(definition.inputs)
    encoded = [name for name, info in definition.inputs.items() if info.WhichOneof("encoding") == "composite_tensor"]
    outputs = tensors_of(definition.outputs)

    def call(request: dict[str, Any]) -> dict[str, Any]:
        _require(request, fed, encoded)
        answers: dict[str, Any] = session.run(outputs, {fed[name]: value for name, value in request.items()})
        return answers

    return call


def _require(request: Mapping[str, Any], taken: Mapping[str, Any], encoded: Sequence[str]) -> None:
    """Raise ValueError where a request is not one tensor for each input."""
    if encoded:
        raise ValueError(f"the inputs {sorted(encoded)} are composite tensors, which a request cannot hold")
    if unknown := sorted(request.keys() - taken.keys()):
        raise ValueError(f"it has no inputs {unknown}; its inputs are {sorted(taken)}")


def fed_tensors(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the tensors of a signature's inputs by the names of what is asked; of a sparse one its parts.

    They are called as `tf.saved_model.load` calls them. A composite one is left out: no request holds it.
    """
    dense = {name: info.name for name, info in inputs.items() if info.name}
    sparse = [(name, info.coo_sparse) for name, info in inputs.items() if info.WhichOneof("encoding") == "coo_sparse"]
    for name, coo in sparse:
        tensors = (coo.indices_tensor_name, coo.values_tensor_name, coo.dense_shape_tensor_name)
        dense |= dict(zip(sparse_parts(name), tensors, strict=True))
    return dense


def tensors_of(outputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the tensors of a signature's outputs as a session is asked for them; of a ragged or sparse one its parts.

    That of an initialization is an operation, which answers nothing.
    """
    parts = (part for name, info in outputs.items() for part in _parts(name, _tensors(info)))
    return {part: tensor for part, tensor in parts if tensor}


def _tensors(info: Any) -> list[str]:
    """Return the tensors of a TensorInfo in the order that tf.nest has their parts."""
    if info.WhichOneof("encoding") == "coo_sparse":
        sparse = info.coo_sparse
        return [sparse.indices_tensor_name, sparse.values_tensor_name, sparse.dense_shape_tensor_name]
    if info.WhichOneof("encoding") == "composite_tensor":
        return [tensor for part in info.composite_tensor.components for tensor in _tensors(part)]
    return [info.name]


def _parts(name: str, values: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(name, values[0])] if len(values) == 1 else [(f"{name}/{i}", value) for i, value in enumerate(values)]


def _as_array(value: Any) -> NDArray[Any]:
    """Return an answer as an array; a lone text as an object, because numpy's own type of text drops ending zeros."""
    return np.array(value, dtype=np.object_) if isinstance(value, bytes) else np.asarray(value)
