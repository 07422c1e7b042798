"""The weights of a draft as lossy rungs take them: whole tensors of the checkpoint that fill variables.

Large constants of the graph become variables, and slices of partitioned variables tensors of their own. Both answer as
before; what is stored of a variable can then have another form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_pb2 import TensorProto

from servegraph.rewriting.contents import Content, Literal, Stored, digest
from servegraph.rewriting.draft import Draft, is_named, names_of
from servegraph.rewriting.forms import FLOATS, enum
from servegraph.rewriting.graph import Nodes
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.rewriting.restores import Restore, variable
from servegraph.savedmodel.bundle_index import SliceSpec
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.tensor_values import values_of

LEAST_WEIGHTS = 1024  # smaller vectors (biases, norms) are next to nothing of a model, and the most sensitive
LEAST_IN_MATRIX = 256  # what reads a smaller one in another form takes as much as that saves
_MOVABLE = {enum(dtype) for dtype in FLOATS}


@dataclass(frozen=True)
class Weight:
    """A tensor that may be stored in another form, under its key, and the nodes of the variables that it fills."""

    key: str
    content: Content
    handles: tuple[str, ...]


def loosen(draft: Draft) -> Draft:
    """Return the draft with large constants as variables and slices as tensors of their own."""
    if draft.untouched:
        return draft
    contents = dict(draft.contents)
    with draft.tensors() as tensors:
        graphs = tuple(_loosened(graph, contents, tensors) for graph in draft.serving_graphs)
    return replace(draft, graphs=graphs, contents=contents).with_needed_contents()


def constant_bytes(draft: Draft) -> int:
    """Return how many bytes of constants `loosen` makes variables of."""
    if draft.untouched:
        return 0
    return sum(
        int(node.attr["value"].tensor.ByteSize())
        for graph in draft.serving_graphs
        for node in graph.nodes.values()
        if _is_movable(node, graph.nodes)
    )


def weights_of(draft: Draft) -> list[Weight]:
    """Return the large tensors of fixed-size elements that fill variables, whole, in every MetaGraph.

    Those that the draft keeps as they are, or what was computed from them, are not among them.
    """
    if draft.untouched:
        return []
    handles: dict[str, list[str]] = {}
    spoiled: set[str] = set()
    for restore in draft.restores:
        for tensor in restore.tensors:
            handles.setdefault(tensor.key, []).append(restore.handle)
            if restore.put.op not in ("Assign", "AssignVariableOp") or tensor.slice_spec or tensor.part:
                spoiled.add(tensor.key)
    found = []
    for key, names in handles.items():
        content = draft.contents[key]
        least = LEAST_WEIGHTS if len(content.shape) < 2 else LEAST_IN_MATRIX
        is_large = prod(content.shape) >= least and content.dtype not in ("string", "variant", "resource")
        is_kept = not draft.kept.isdisjoint(content.origins) or is_named(names_of(key, names), draft.keep)
        if key not in spoiled and is_large and not is_kept:
            found.append(Weight(key, content, tuple(dict.fromkeys(names))))
    return found


def unmatched(draft: Draft) -> list[str]:
    """Return the patterns of `draft.keep` that no weight matches."""
    if not draft.keep:
        return []
    loose = loosen(draft)
    names: set[str] = set()
    for restore in loose.restores:
        for tensor in restore.tensors:
            names |= names_of(tensor.key, [restore.handle])
            for origin in loose.contents[tensor.key].origins:
                names |= names_of(origin)
    return [pattern for pattern in draft.keep if not is_named(names, [pattern])]


def _loosened(graph: ServingGraph, contents: dict[str, Content], tensors: BundleReader | None) -> ServingGraph:
    nodes: Nodes = dict(graph.nodes)
    restores = [_unsliced(restore, contents, tensors) for restore in graph.restores]
    restores += [_moved(node, nodes, contents) for node in graph.nodes.values() if _is_movable(node, graph.nodes)]
    return replace(graph, nodes=nodes, restores=tuple(restores))


def _is_movable(node: NodeDef, nodes: Nodes) -> bool:
    is_plain = node.op == "Const" and not node.input and node.attr["dtype"].type in _MOVABLE
    return is_plain and _is_large(node.attr["value"].tensor) and f"{node.name}/handle" not in nodes


def _is_large(value: TensorProto) -> bool:
    """Whether a constant has the elements of a weight, and holds them: one value for all of them takes no room."""
    elements = int(prod(dim.size for dim in value.tensor_shape.dim))
    held_bytes = int(value.ByteSize())
    return elements >= LEAST_WEIGHTS and 2 * held_bytes >= elements * int(tf.as_dtype(value.dtype).size)


def _moved(node: NodeDef, nodes: Nodes, contents: dict[str, Content]) -> Restore:
    """Put a variable in the place of a constant; its read has the constant's name."""
    values = values_of(node.attr["value"].tensor)
    key = f"constant-{digest(values)}"
    contents.setdefault(key, Literal(values))
    return variable(nodes, node.name, key, contents[key], node.device)


def _unsliced(restore: Restore, contents: dict[str, Content], tensors: BundleReader | None) -> Restore:
    """Let a variable that is one stored piece of a partitioned tensor read that piece under a key of its own."""
    if tensors is None:
        return restore
    loose = []
    for tensor in restore.tensors:
        content = contents[tensor.key]
        if tensor.slice_spec and isinstance(content, Stored) and tensor.key in tensors.entries:
            whole = tensors.entries[tensor.key]
            spec = parse_slice(tensor.slice_spec, whole.shape)
            if spec in whole.slices:
                key = f"{tensor.key}:{tensor.slice_spec.rpartition(' ')[2]}"
                shape = tuple(length for _, length in spec)
                contents[key] = Stored(tensor.key, content.dtype, shape, spec)
                loose.append(replace(tensor, key=key, slice_spec=""))
                continue
        loose.append(tensor)
    return replace(restore, tensors=tuple(loose))


def parse_slice(slice_spec: str, shape: tuple[int, ...]) -> SliceSpec:
    """Read TensorFlow's text of a slice, such as `252 16 0,126:-`: the whole shape, then start and length, or all."""
    extents = slice_spec.rpartition(" ")[2].split(":")
    spec = []
    for extent, size in zip(extents, shape, strict=True):
        start, _, length = extent.partition(",")
        spec.append((0, size) if extent == "-" else (int(start), int(length)))
    return tuple(spec)
