"""The rung that drops what serving cannot reach: nodes, functions, variables, assets, stray files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, MetaGraphDef

from servegraph.rewriting.draft import Draft
from servegraph.rewriting.meta_graph import ServingGraph, assets_of, keep_what_serves
from servegraph.rewriting.switches import settle_switches
from servegraph.savedmodel.layout import role_of

# What TF Serving and the SavedModel format know beside graph and variables; everything else is a stray file (R15).
_KEPT_FOLDERS = ("assets", "assets.extra")


def strip(draft: Draft) -> Draft:
    """Drop what no signature reaches, branches that never run, unused assets, and files that serving does not know."""
    return strip_branching(draft.with_graphs(settle_switches))


def strip_branching(draft: Draft) -> Draft:
    """Do the same, and leave the branches."""
    stripped = draft.with_graphs(keep_what_serves)
    assets = {f"assets/{asset.filename}" for graph in stripped.graphs for asset in _assets(graph)}
    files = tuple(
        path
        for path in draft.files
        if role_of(path) == "variables"  # of a checkpoint that is not read here, and left as it is
        or (PurePosixPath(path).parts[0] in _KEPT_FOLDERS and (not path.startswith("assets/") or path in assets))
    )
    return replace(stripped, files=files)


def _assets(graph: ServingGraph | MetaGraphDef) -> Iterable[AssetFileDef]:
    return assets_of(graph) if isinstance(graph, MetaGraphDef) else graph.assets
