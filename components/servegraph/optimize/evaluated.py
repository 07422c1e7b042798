"""What a graph computes without a request, in a child process: some operations end theirs, as an odd convolution."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.framework.errors_impl import OpError

from servegraph.answers.child import in_child
from servegraph.errors import ModelError

Arrays = Mapping[str, NDArray[Any]]


class Outputs(NamedTuple):
    """What is known of a graph's operations before they run: the bytes of the largest output, 0 where unknown.

    `odd` are those with an output of a quantized type: numpy would give its levels under another.
    """

    largest_bytes: Mapping[str, int]
    odd: frozenset[str]


def outputs_of(definition: GraphDef) -> Outputs:
    """Return what TensorFlow infers of the operations of a graph.

    Raises:
        ModelError: TensorFlow ended its process (code `CRASHED`).
        ValueError: it is no graph.
    """
    return in_child(_outputs, definition.SerializeToString(), lane="rewrite")


def evaluated(definition: GraphDef, tensors: Sequence[str], feeds: Arrays) -> Arrays:
    """Return the values of what can be computed: of a branch that is never taken some may fail.

    Where one ends the process of all, there are none.
    """
    if not tensors:
        return {}
    try:
        return in_child(_values, definition.SerializeToString(), tensors, feeds, lane="rewrite")
    except ModelError:  # so will a request that needs it, if one does
        return {}


def _outputs(definition: bytes) -> Outputs:
    """Runs in a child: infer shapes."""
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(GraphDef.FromString(definition), name="")
        operations = graph.get_operations()
    odd = (op.name for op in operations if any(output.dtype.is_quantized for output in op.outputs))
    return Outputs({op.name: _largest_bytes(op) for op in operations}, frozenset(odd))


def _largest_bytes(op: tf.Operation) -> int:
    return max((output.dtype.size * (output.shape.num_elements() or 0) for output in op.outputs), default=0)


def _values(definition: bytes, tensors: Sequence[str], feeds: Arrays) -> Arrays:
    """Runs in a child: compute all at once, or where one fails, each."""
    names = {tensor: tensor if ":" in tensor else f"{tensor}:0" for tensor in tensors}
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(GraphDef.FromString(definition), name="")
        try:
            return dict(zip(tensors, map(np.asarray, session.run(list(names.values()), feeds)), strict=True))
        except OpError:
            found = {}
            for tensor, name in names.items():
                with contextlib.suppress(OpError):
                    found[tensor] = np.asarray(session.run(name, feeds))
            return found
