"""One loaded SavedModel. The only module here that imports TensorFlow, and only when a model is loaded."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from servegraph.errors import ModelError, Refusal, RequestError
from servegraph.serve.arrays import Array
from servegraph.serve.decode import PredictRequest, decode
from servegraph.serve.encode import encode
from servegraph.serve.signatures import SERVING_TAG, ServingGraph, read_serving_graph
from servegraph.storage import open_dir

_log = logging.getLogger(__name__)

# What a model's operations may blame on the request; all else is the model's or the machine's fault.
_CALLER_ERRORS = ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE")


class Model:
    """A loaded version of a model. `worker` is the one thread in which its predictions run, in order."""

    def __init__(self, loaded: Any, graph: ServingGraph, thread_name: str) -> None:
        """Keep `loaded`, which `tf.saved_model.load` returned: its functions hold their variables weakly."""
        self.signatures = graph.signatures
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread_name)
        self._loaded = loaded
        self._graph = graph

    def predict(self, body: bytes) -> bytes:
        """Return the JSON answer to the JSON request `body`.

        Raises:
            RequestError: the request does not match the signature, or the model refused its values.
            Refusal: the model failed; the code is TensorFlow's status name.
        """
        request = decode(body, self._graph)
        return encode(self.run(request), request.format)

    def run(self, request: PredictRequest) -> Mapping[str, Array]:
        """Return the outputs of the signature. Raises as `predict` does."""
        import tensorflow as tf

        function = self._loaded.signatures[request.signature_name]
        try:
            answer = function(**{name: tf.constant(array) for name, array in request.inputs.items()})
            return {name: tensor.numpy() for name, tensor in answer.items()}
        except tf.errors.OpError as exc:
            code = _status_name(exc)
            message = _first_cause(exc.message)
            if code in _CALLER_ERRORS:
                raise RequestError(message, code=code) from exc
            raise Refusal(message, code=code) from exc


def load_model(directory: Path) -> Model:
    """Load the MetaGraph tagged `serve` of the SavedModel in `directory`.

    Raises:
        ModelError: it is not a SavedModel, is damaged, or needs what this TensorFlow does not have.
    """
    graph = read_serving_graph(open_dir(directory))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow's library is loaded
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # else a page for each model of TF1, about training it further
    try:
        loaded = tf.saved_model.load(str(directory), tags=[SERVING_TAG])
    except Exception as exc:  # TensorFlow raises ValueError, OSError, KeyError, OpError, … for damaged models
        raise ModelError(
            f"TensorFlow {tf.__version__} cannot load {str(directory)!r}: {_first_cause(str(exc))}",
            code="MODEL_NOT_LOADED",
            fix="Look at it with `servegraph inspect`.",
        ) from exc
    return Model(loaded, graph, thread_name=f"{directory.parent.name}-{directory.name}")


def _status_name(error: Any) -> str:
    """Return TensorFlow's name of the status, `INVALID_ARGUMENT`, from the class `InvalidArgumentError`."""
    words = re.findall("[A-Z][a-z]*", type(error).__name__.removesuffix("Error"))
    return "_".join(words).upper() or "UNKNOWN"


def _first_cause(message: str) -> str:
    """Return what a kernel said, without the positions and stack traces that TensorFlow puts around it."""
    lines = [line.strip() for line in re.split(r"\[\[\{\{|\[Op:", message)[0].splitlines()]
    around = ("Graph execution error:", "Detected at node ", "File ", "Node: ", "Stack trace for op ")
    return " ".join(line for line in lines if line and not line.startswith(around))[:1000] or message[:1000]
