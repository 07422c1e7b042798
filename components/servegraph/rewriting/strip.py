"""The rung that drops what serving cannot reach: nodes, functions, variables, assets, stray files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, MetaGraphDef

from servegraph.rewriting.draft import Draft
from servegraph.rewriting.meta_graph import ServingGraph, assets_of, keep_what_serves
from servegraph.rewriting.switches import settle_switches

# What TF Serving and the SavedModel format know beside graph and variables; everything else is a stray file (R15).
_KEPT_FOLDERS = ("assets", "assets.extra")


def strip(draft: Draft) -> Draft:
    """Drop what no signature reaches, unused assets, and files that serving does not know."""
    stripped = draft.with_graphs(lambda graph: keep_what_serves(settle_switches(graph)))
    assets = {f"assets/{asset.filename}" for graph in stripped.graphs for asset in _assets(graph)}
    files = tuple(
        path
        for path in draft.files
        if PurePosixPath(path).parts[0] in _KEPT_FOLDERS and (not path.startswith("assets/") or path in assets)
    )
    return replace(stripped, files=files)


def _assets(graph: ServingGraph | MetaGraphDef) -> Iterable[AssetFileDef]:
    return assets_of(graph) if isinstance(graph, MetaGraphDef) else graph.assets
