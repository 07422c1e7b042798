"""The ladder's rungs: a table of pure functions from draft to draft, from least to most lossy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from pathlib import PurePosixPath

from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, MetaGraphDef

from servegraph.optimize.draft import Draft
from servegraph.optimize.encodings import ENCODINGS
from servegraph.optimize.graph import Nodes, node_name
from servegraph.optimize.meta_graph import ServingGraph, keep_what_serves
from servegraph.optimize.restoring import Restore
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.bundle_reader import BundleReader

# What TF Serving and the SavedModel format know beside graph and variables; everything else is a stray file (R15).
_KEPT_FOLDERS = ("assets", "assets.extra")
LEAST_WEIGHTS = 1024  # smaller variables (biases, norms) are next to nothing of a model, and the most sensitive
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
    graphs = tuple(g if isinstance(g, MetaGraphDef) else _share(g, aliases) for g in draft.graphs)
    if draft.untouched:  # a graph that stays as it is asks for its own keys
        return replace(draft, graphs=graphs, aliases=aliases)
    wanted = {key for graph in graphs if isinstance(graph, ServingGraph) for key in graph.checkpoint_keys}
    return replace(draft, graphs=graphs, keys=tuple(key for key in draft.keys if key in wanted))


def store_as(encoding: str) -> Callable[[Draft], Draft]:
    """Return the rung that stores every large float32 variable in this form."""

    def rung(draft: Draft) -> Draft:
        if draft.untouched:
            return draft
        with draft.tensors() as tensors:
            keys = _encodable(draft, tensors, encoding) if tensors else set()
        graphs = tuple(
            replace(g, restores=tuple(_stored_as(r, keys, encoding) for r in g.restores))
            for g in draft.graphs
            if isinstance(g, ServingGraph)
        )
        return replace(draft, graphs=graphs)

    return rung


# Adding a rung is adding a row. Lossless rungs are always taken; lossy ones only until the budget is met.
RUNGS: tuple[Rung, ...] = (
    Rung("strip", "drop what no signature reaches, and stray files", strip, lossless=True),
    Rung("share", "store each tensor once", share, lossless=True),
    Rung("halve", "store weights as float16", store_as("float16"), lossless=False),
    Rung("quarter", "store weights as int8 with a scale per output channel", store_as("int8"), lossless=False),
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


def _encodable(draft: Draft, tensors: BundleReader, encoding: str) -> set[str]:
    """Return the keys that are large float32 variables wherever they are restored, and fit the encoding."""
    plain: dict[str, bool] = {}
    for restore in draft.restores:
        for tensor in restore.tensors:
            whole = restore.put.op in ("Assign", "AssignVariableOp") and not tensor.slice_spec
            plain[tensor.key] = plain.get(tensor.key, True) and whole
    candidates = [tensors.entries[key] for key, is_plain in plain.items() if is_plain]
    return {
        entry.key
        for entry in candidates
        if entry.dtype == "float32"
        and not entry.slices
        and prod(entry.shape) >= LEAST_WEIGHTS
        and ENCODINGS[encoding].fits(entry, tensors)
    }


def _stored_as(restore: Restore, keys: set[str], encoding: str) -> Restore:
    tensors = tuple(replace(t, encoding=encoding) if t.key in keys else t for t in restore.tensors)
    return replace(restore, tensors=tensors)


def _share(graph: ServingGraph, aliases: dict[str, str]) -> ServingGraph:
    """Read equal tensors under one key, and let variables that hold them be one variable."""
    restores = tuple(
        replace(r, tensors=tuple(replace(t, key=aliases.get(t.key, t.key)) for t in r.tensors)) for r in graph.restores
    )
    return _share_variables(replace(graph, restores=restores))


def _share_variables(graph: ServingGraph) -> ServingGraph:
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
        same = (tensor.key, tensor.slice_spec, node.attr["dtype"].type, node.device)
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
