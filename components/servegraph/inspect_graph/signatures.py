"""Can it be asked: tags, signatures, batch dimensions, names and types that JSON carries."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from servegraph.inspect_graph.findings import Finding, finding
from servegraph.savedmodel.graph import (
    DEFAULT_SIGNATURE,
    INIT_SIGNATURE,
    SERVING_TAG,
    TRAIN_SIGNATURE,
    MetaGraph,
    SavedModelGraph,
    Signature,
    TensorInfo,
    default_misfit,
)

PREDICT = "tensorflow/serving/predict"
# What a predict request may call: tensorflow_serving/servables/tensorflow/predict_util.cc.
CALLABLE = (PREDICT, "tensorflow/serving/classify", "tensorflow/serving/regress")

# What TensorFlow Serving's JSON has no form for; quantized types need their range besides.
UNSENDABLE_DTYPES = frozenset(
    {"complex64", "complex128", "resource", "variant", "qint8", "quint8", "qint16", "quint16", "qint32"}
)
# {"b64": …} is how a request spells bytes, so an input of that name cannot be told from them.
B64 = "b64"


def serving_signatures(meta_graph: MetaGraph) -> dict[str, Signature]:
    """Return the signatures that clients call, without those that loading uses."""
    internal = (INIT_SIGNATURE, TRAIN_SIGNATURE)
    return {name: value for name, value in meta_graph.signatures.items() if name not in internal}


def default_signature(graph: SavedModelGraph) -> Signature | None:
    """Return the signature that a platform calls when it is told no name."""
    for meta_graph in graph.meta_graphs:
        signature = serving_signatures(meta_graph).get(DEFAULT_SIGNATURE)
        if SERVING_TAG in meta_graph.tags and signature is not None and signature.method_name in CALLABLE:
            return signature
    return None


def tag_label(meta_graph: MetaGraph) -> str:
    """Return how findings name a MetaGraph."""
    return f"[{', '.join(meta_graph.tags)}]"


def check_signatures(graph: SavedModelGraph) -> Iterator[Finding]:
    """Find what keeps clients from asking the model."""
    if not any(SERVING_TAG in meta_graph.tags for meta_graph in graph.meta_graphs):
        yield finding("NO_SERVING_TAG", f"The tag sets are {', '.join(map(tag_label, graph.meta_graphs))}.")
    for tags, count in Counter(frozenset(meta_graph.tags) for meta_graph in graph.meta_graphs).items():
        if count > 1:
            yield finding("SAME_TAGS", f"{count} MetaGraphs have [{', '.join(sorted(tags))}].")
    for meta_graph in graph.meta_graphs:
        where = tag_label(meta_graph)
        signatures = serving_signatures(meta_graph)
        if not signatures:
            yield finding("NO_SIGNATURE", f"{where} has none.")
            continue
        if SERVING_TAG not in meta_graph.tags and all(signature.is_supervised for signature in signatures.values()):
            yield finding("TRAINING_GRAPH", f"{where} has {', '.join(sorted(signatures))}.")
            continue
        if DEFAULT_SIGNATURE not in signatures:
            yield finding("NO_SERVING_DEFAULT", f"{where} has {', '.join(sorted(signatures))}.")
        if not any(signature.method_name == PREDICT for signature in signatures.values()):
            methods = sorted({signature.method_name or "none" for signature in signatures.values()})
            yield finding("NO_PREDICT_SIGNATURE", f"{where} has the method names {', '.join(methods)}.")
        for name, signature in sorted(signatures.items()):
            yield from _check_shapes(f"{where} {name}", signature)
            yield from _check_json(f"{where} {name}", signature)
            yield from _check_defaults(f"{where} {name}", signature, meta_graph)


def _sides(signature: Signature) -> Iterator[tuple[str, str, TensorInfo]]:
    for side, infos in (("input", signature.inputs), ("output", signature.outputs)):
        for name, info in infos.items():
            yield side, name, info


def _check_shapes(where: str, signature: Signature) -> Iterator[Finding]:
    """Find dimensions that stop batching. For outputs an error only where inputs have a batch."""
    takes_batches = any(info.shape and info.shape[0] is None for info in signature.inputs.values())
    open_ended = []
    for side, name, info in _sides(signature):
        what = f"{where}: the {side} {name!r}"
        if info.encoding == "composite":  # which has parts, each of a shape of its own
            continue
        if info.shape is None:
            yield finding("UNKNOWN_RANK", f"{what} has any number of dimensions.")
        elif info.shape and info.shape[0] is None:
            if None in info.shape[1:]:
                open_ended.append(f"{name!r} {shape_text(info)}")
        elif side == "input" and _is_sparse_size(info, signature):
            yield finding("ENCODED_TENSOR", f"{what} is the size of a sparse tensor whose parts are given one by one.")
        elif info.shape and (side == "input" or takes_batches):
            yield finding("FIXED_BATCH", f"{what} is {shape_text(info)}; its first dimension must be None.")
        else:
            yield finding("NO_BATCH", f"{what} is {shape_text(info)}.")
    if open_ended:
        yield finding("UNKNOWN_SIZE", f"{where}: {', '.join(open_ended)}.")


def _is_sparse_size(info: TensorInfo, signature: Signature) -> bool:
    """Tell whether an input is the `dense_shape` of a tf.SparseTensor, whose `indices` then have as many columns.

    TF2 writes a signature that takes one with three inputs: indices, values, dense_shape.
    """
    if info.dtype != "int64" or info.shape is None or len(info.shape) != 1:
        return False
    return any(other.dtype == "int64" and other.shape == (None, *info.shape) for other in signature.inputs.values())


def _check_json(where: str, signature: Signature) -> Iterator[Finding]:
    """Find names and types that a JSON client cannot send or receive."""
    for side, name, info in _sides(signature):
        what = f"{where}: the {side} {name!r}"
        if info.encoding != "dense":
            yield finding("ENCODED_TENSOR", f"{what} is {info.encoding}.")
        elif info.dtype in UNSENDABLE_DTYPES or info.dtype.startswith("unknown"):
            yield finding("UNSENDABLE_DTYPE", f"{what} is {info.dtype}.")
        if not name or name == B64 or re.search(r"[\x00-\x1f\x7f�]", name):
            yield finding("UNSENDABLE_NAME", f"{what} has such a name.")


def _check_defaults(where: str, signature: Signature, meta_graph: MetaGraph) -> Iterator[Finding]:
    """Find defaults that are no value of their input; the shapes that a signature of TF1 names are remarks."""
    for name in sorted(signature.defaults.keys() & signature.inputs.keys()):
        info = signature.inputs[name]
        info = info if meta_graph.has_object_graph else info._replace(shape=None)
        if misfit := default_misfit(signature.defaults[name], info):
            yield finding("BAD_DEFAULT", f"{where}: the default of {name!r} {misfit}.")


def shape_text(info: TensorInfo) -> str:
    """Return a type and shape as people write them: `float32 [None, 4]`."""
    if info.shape is None:
        return f"{info.dtype} of any rank"
    return f"{info.dtype} [{', '.join(map(str, info.shape))}]"
