"""The ladder's rungs: a table of pure functions from draft to draft, from least to most lossy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath

from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, MetaGraphDef

from servegraph.optimize.draft import Draft
from servegraph.optimize.graph import Nodes, node_name
from servegraph.optimize.meta_graph import ServingGraph, keep_what_serves
from servegraph.optimize.restoring import Restore
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.bundle_reader import BundleReader

# What TF Serving and the SavedModel format know beside graph and variables; everything else is a stray file (R15).
_KEPT_FOLDERS = ("assets", "assets.extra")
# Operations that change a variable. While any can run, two variables of equal value may part.
_READ_ONLY = ("ResourceGather", "ResourceGatherNd")
_CHANGES = ("Assign", "Resource", "Scatter")


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: what it does in words, the function, and whether answers must stay bit for bit."""

    name: str
    what: str
    apply: Callable[[Draft], Draft]
    lossless: bool


def strip(draft: Draft) -> Draft:
    """Drop what no signature reaches, unused assets, and files that serving does not know."""
    graphs = tuple(g if isinstance(g, MetaGraphDef) else keep_what_serves(g) for g in draft.graphs)
    assets = {f"assets/{asset.filename}" for graph in graphs for asset in _assets(graph)}
    files = tuple(
        path
        for path in draft.files
        if PurePosixPath(path).parts[0] in _KEPT_FOLDERS and (not path.startswith("assets/") or path in assets)
    )
    keys = draft.keys
    if not draft.untouched:
        wanted = {key for graph in graphs if isinstance(graph, ServingGraph) for key in graph.checkpoint_keys}
        keys = tuple(key for key in draft.keys if key in wanted)
    return replace(draft, graphs=graphs, keys=keys, files=files)


def share(draft: Draft) -> Draft:
    """Store equal tensors once; where no operation can change them, also hold equal variables once in memory."""
    with draft.tensors() as tensors:
        aliases = _equal_tensors(tensors, draft.keys) if tensors else {}
    graphs = tuple(g if isinstance(g, MetaGraphDef) else _share_variables(g, aliases) for g in draft.graphs)
    keys = draft.keys
    if not draft.untouched:
        wanted = {key for graph in graphs if isinstance(graph, ServingGraph) for key in graph.checkpoint_keys}
        wanted |= {aliases[key] for key in wanted if key in aliases}
        keys = tuple(key for key in draft.keys if key in wanted)
    kept = {key: same_as for key, same_as in aliases.items() if key in keys}
    return replace(draft, graphs=graphs, keys=keys, aliases=kept)


# Adding a rung is adding a row. Lossless rungs are always taken; lossy ones only until the budget is met.
RUNGS: tuple[Rung, ...] = (
    Rung("strip", "drop what no signature reaches, and stray files", strip, lossless=True),
    Rung("share", "store each tensor once", share, lossless=True),
)


def _assets(graph: ServingGraph | MetaGraphDef) -> Iterable[AssetFileDef]:
    return graph.asset_file_def if isinstance(graph, MetaGraphDef) else graph.assets


def _equal_tensors(tensors: BundleReader, keys: Iterable[str]) -> dict[str, str]:
    """Return {key: an earlier key with the same dtype, shape and bytes}; compared by bytes, not only by checksum."""

    def looks(entry: TensorEntry) -> tuple[str, tuple[int, ...], int, int]:
        return (entry.dtype, entry.shape, entry.size_bytes, entry.crc32c)

    whole = [tensors.entries[key] for key in keys if not tensors.entries[key].slices]
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


def _share_variables(graph: ServingGraph, aliases: dict[str, str]) -> ServingGraph:
    """Let variables restored from equal tensors be one variable."""
    if _changes_variables(graph):
        return graph
    first: dict[tuple[object, ...], Restore] = {}
    merged: dict[str, str] = {}
    for restore in graph.restores:
        node = graph.nodes[restore.handle]
        if node.op != "VarHandleOp" or len(restore.tensors) != 1:
            continue
        tensor = restore.tensors[0]
        same = (aliases.get(tensor.key, tensor.key), tensor.slice_spec, node.attr["dtype"].type, node.device)
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
        copy.input[:] = [_redirected(tensor, merged) for tensor in node.input]
        nodes[name] = copy
    restores = tuple(restore for restore in graph.restores if restore.handle not in merged)
    return replace(graph, nodes=nodes, restores=restores)


def _redirected(tensor: str, merged: dict[str, str]) -> str:
    name = node_name(tensor)
    if name not in merged:
        return tensor
    return f"^{merged[name]}" if tensor.startswith("^") else merged[name]


def _changes_variables(graph: ServingGraph) -> bool:
    bodies = [graph.nodes.values(), *(function.node_def for function in graph.library.values())]
    return any(
        node.op.startswith(_CHANGES) and node.op not in _READ_ONLY and node.name not in graph.initializers
        for body in bodies
        for node in body
    )
