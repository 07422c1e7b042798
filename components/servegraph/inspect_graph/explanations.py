"""Can its predictions be explained: the answer of `servegraph.explanations` for a graph that was read (R12)."""

from __future__ import annotations

from datetime import date

from servegraph.explanations.rules import Answer, explainable
from servegraph.inspect_graph.signatures import default_signature
from servegraph.savedmodel.graph import SavedModelGraph


def explanations(platform: str, graph: SavedModelGraph, today: date) -> Answer:
    """Return whether a platform can explain the predictions of a model, on servegraph's image where it has images."""
    return explainable(platform, default_signature(graph), graph.meta_graphs[0].tf_version or "", today)
