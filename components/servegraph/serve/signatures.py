"""The signatures of a model, which say what a client may send: read from its files, and as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from servegraph.errors import ModelError
from servegraph.savedmodel.graph import INIT_SIGNATURE, SERVING_TAG, TRAIN_SIGNATURE, Shape, Signature, TensorInfo
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.storage import Directory

Signatures = Mapping[str, Signature]


class ServingGraph(NamedTuple):
    """What a server needs to know of the MetaGraph it loads.

    `declares_shapes` is False for exports of TF1: there the shapes of a signature are remarks that neither
    TensorFlow nor TF Serving holds a request to, and TF Serving's own example asks a signature of [?, 1] with
    [1.0, 2.0, 5.0]. Without an object graph, which optimizing takes out, the names of tensors are those in the graph.
    """

    signatures: dict[str, Signature]
    declares_shapes: bool
    tensorflow_version: str = ""
    has_object_graph: bool = True


def read_serving_graph(directory: Directory) -> ServingGraph:
    """Return what is known of the MetaGraph tagged `serve` and nothing else, the one that servers load.

    Raises:
        ModelError: there is no such MetaGraph (code `NO_SERVING_TAG`), or the directory is not a SavedModel.
        StorageError: it cannot be read.
    """
    graphs = read_saved_model(directory).meta_graphs
    for graph in graphs:
        if graph.tags == (SERVING_TAG,):
            internal = (INIT_SIGNATURE, TRAIN_SIGNATURE)
            signatures = {name: sig for name, sig in graph.signatures.items() if name not in internal}
            is_of_tf2 = graph.has_object_graph or _has_inputs_of_tf2(signatures)
            return ServingGraph(signatures, is_of_tf2, graph.tf_version, graph.has_object_graph)
    found = "; ".join("{" + ", ".join(graph.tags) + "}" for graph in graphs) or "none"
    raise ModelError(
        f"{directory.uri!r} has no MetaGraph with the tag '{SERVING_TAG}' that servers load, only {found}.",
        code="NO_SERVING_TAG",
        fix=f"Export the model with the tag '{SERVING_TAG}'.",
    )


def _has_inputs_of_tf2(signatures: Signatures) -> bool:
    """Whether the inputs are called as TensorFlow 2 writes them: optimizing takes the object graph and leaves names.

    Equal signatures may share the inputs of one of them.
    """
    written = {f"{name}_{key}:0" for name, signature in signatures.items() for key in signature.inputs}
    dense = [
        info for signature in signatures.values() for info in signature.inputs.values() if info.encoding == "dense"
    ]
    return bool(dense) and all(info.tensors[0] in written for info in dense)


def signatures_to_json(signatures: Signatures) -> dict[str, Any]:
    """Return names, types and shapes as JSON values, sorted by name; names in the graph are left out."""
    return {
        name: {
            "method_name": signature.method_name,
            "inputs": _tensors_to_json(signature.inputs),
            "outputs": _tensors_to_json(signature.outputs),
        }
        for name, signature in sorted(signatures.items())
    }


def signatures_from_json(document: Mapping[str, Any]) -> dict[str, Signature]:
    """Return what `signatures_to_json` wrote. Raises KeyError, TypeError or AttributeError on all else."""
    return {
        name: Signature(
            method_name=str(entry["method_name"]),
            inputs=_tensors_from_json(entry["inputs"]),
            outputs=_tensors_from_json(entry["outputs"]),
        )
        for name, entry in document.items()
    }


def shape_text(shape: Shape) -> str:
    """Return `[?, 8]` for (None, 8), and `any shape` where the number of dimensions is unknown."""
    if shape is None:
        return "any shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _tensors_to_json(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    return {
        name: {"dtype": tensor.dtype, "shape": None if tensor.shape is None else list(tensor.shape)}
        for name, tensor in sorted(tensors.items())
    }


def _tensors_from_json(document: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(
            tensors=(),
            dtype=str(entry["dtype"]),
            shape=None if entry["shape"] is None else tuple(entry["shape"]),
            encoding="dense",
        )
        for name, entry in document.items()
    }
