"""The rung that stores equal things once: tensors, variables that hold them, signatures that compute the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from servegraph.optimize.equal_signatures import share_signatures
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.graph import Nodes, redirected
from servegraph.rewriting.handles import written_by
from servegraph.rewriting.meta_graph import ServingGraph, keep_what_serves
from servegraph.rewriting.restores import Restore
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.bundle_reader import BundleReader

# Operations that change a variable. While any can run, two variables of equal value may part.
_READ_ONLY = ("ResourceGather", "ResourceGatherNd", "StatefulPartitionedCall", "ScatterNd", "ScatterNdNonAliasingAdd")
_CHANGES = ("Assign", "Resource", "Scatter", "Rng", "Stateful")  # the last two advance a tf.random.Generator


def share(draft: Draft) -> Draft:
    """Store equal tensors once; where no operation can change them, also hold equal variables once in memory."""
    with draft.tensors() as tensors:
        aliases = _equal_tensors(tensors, draft.contents) if tensors else {}
    shared = draft.with_graphs(lambda graph: _share(graph, aliases))
    return replace(shared, aliases=aliases) if draft.untouched else shared  # an untouched graph asks for its own keys


def _share(graph: ServingGraph, aliases: dict[str, str]) -> ServingGraph:
    """Read equal tensors under one key, let variables that hold them be one, and signatures that compute the same."""
    restores = [
        replace(r, tensors=tuple(replace(t, key=aliases.get(t.key, t.key)) for t in r.tensors)) for r in graph.restores
    ]
    # Keras 2 stores a variable of mixed precision under two keys, and restores it from both.
    once = {(restore.handle, restore.tensors): restore for restore in restores}
    return keep_what_serves(share_signatures(_share_variables(replace(graph, restores=tuple(once.values())))))


def changes_variables(graph: ServingGraph) -> bool:
    """Whether any operation but the initializers' can change a variable."""
    bodies = [graph.nodes.values(), *(function.node_def for function in graph.library.values())]
    return any(
        node.op.startswith(_CHANGES) and node.op not in _READ_ONLY and node.name not in graph.initializers
        for body in bodies
        for node in body
    )


def _equal_tensors(tensors: BundleReader, keys: Iterable[str]) -> dict[str, str]:
    """Return {key: an earlier key with the same dtype, shape and bytes}; compared by bytes, not only by checksum."""

    def looks(entry: TensorEntry) -> tuple[str, tuple[int, ...], int, int]:
        return (entry.dtype, entry.shape, entry.size_bytes, entry.crc32c)

    there = [tensors.entries[key] for key in keys if key in tensors.entries]  # others are computed
    whole = [entry for entry in there if not entry.slices]
    aliases: dict[str, str] = {}
    for _, group in groupby(sorted(whole, key=lambda e: (*map(str, looks(e)), e.key)), key=looks):
        originals: list[TensorEntry] = []
        for entry in group:
            same = next((o for o in originals if tensors.equal(o, entry)), None)
            if same is None:
                originals.append(entry)
            else:
                aliases[entry.key] = same.key
    return aliases


def _share_variables(graph: ServingGraph) -> ServingGraph:
    """Let variables restored from equal tensors be one variable."""
    if changes_variables(graph):
        return graph
    written = written_by(graph.initializers, graph.nodes)
    first: dict[tuple[object, ...], Restore] = {}
    merged: dict[str, str] = {}
    for restore in graph.restores:
        node = graph.nodes[restore.handle]
        if node.op != "VarHandleOp" or len(restore.tensors) != 1 or restore.handle in written:
            continue
        tensor = restore.tensors[0]
        same = (tensor.key, tensor.slice_spec, tensor.part, node.attr["dtype"].type, node.device)
        if same in first:
            merged[restore.handle] = first[same].handle
        else:
            first[same] = restore
    if not merged:
        return graph
    nodes: Nodes = {}
    for name, node in graph.nodes.items():
        if name in merged:
            continue
        copy = type(node)()
        copy.CopyFrom(node)
        copy.input[:] = [redirected(tensor, merged) for tensor in node.input]
        nodes[name] = copy
    restores = tuple(restore for restore in graph.restores if restore.handle not in merged)
    return replace(graph, nodes=nodes, restores=restores)
