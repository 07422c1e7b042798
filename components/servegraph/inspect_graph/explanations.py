"""Can its predictions be explained: what each platform asks for (R12).

Sources: https://cloud.google.com/ai-platform/prediction/docs/ai-explanations/using-feature-attributions and the
Vertex Explainable AI overview, which announces its end.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from servegraph.inspect_graph.runtimes import RUNTIMES, compatibility, version_of
from servegraph.inspect_graph.signatures import default_signature
from servegraph.savedmodel.graph import SavedModelGraph

VERTEX_END = date(2027, 3, 16)
NUMERIC = ("float", "int", "uint", "bfloat", "bool")  # what the names of numeric types begin with


class Explanations(NamedTuple):
    """Whether a platform can explain a model's predictions, and why or why not."""

    possible: bool
    reason: str


def explanations(platform: str, graph: SavedModelGraph, needed_ops: frozenset[str], today: date) -> Explanations:
    """Return whether a platform can explain the predictions of a model (R12)."""
    signature = default_signature(graph)
    if platform not in ("ai-platform", "vertex"):
        return Explanations(False, "it has no explanations of its own for TensorFlow models.")
    if signature is None:
        return Explanations(False, "there is no default signature to explain.")
    numeric = [name for name, info in signature.inputs.items() if info.dtype.startswith(NUMERIC)]
    outputs = [name for name, info in signature.outputs.items() if info.dtype.startswith(NUMERIC)]
    if not outputs:
        return Explanations(False, "no output is numeric; attributions are of a number.")
    if not numeric:
        return Explanations(False, "no input is numeric; serialized inputs hide the features.")
    return _ai_platform(graph) if platform == "ai-platform" else _vertex(graph, needed_ops, today)


def _ai_platform(graph: SavedModelGraph) -> Explanations:
    """The last documented rule; the service ended with the platform."""
    version = version_of(graph.meta_graphs[0].tf_version)
    explained = version == (1, 15) or (version is not None and (2, 1) <= version <= (2, 11))
    said = "TensorFlow 1.15 and 2.1 to 2.11 were supported"
    if not explained:
        return Explanations(False, f"{said}, this model is of {graph.meta_graphs[0].tf_version or 'none'}.")
    return Explanations(False, f"{said}, which it meets, but the service was shut down.")


def _vertex(graph: SavedModelGraph, needed_ops: frozenset[str], today: date) -> Explanations:
    if today >= VERTEX_END:
        return Explanations(False, f"Vertex Explainable AI ended on {VERTEX_END}.")
    until = f"Vertex Explainable AI, which ends on {VERTEX_END}, takes one output key"
    prebuilt = compatibility(graph, needed_ops, [runtime for runtime in RUNTIMES if runtime.platform == "vertex"])
    if not any(item.verdict == "loads" for item in prebuilt):
        return Explanations(
            False, f"{until}, on a prebuilt image; none is as new as the TensorFlow that wrote the model."
        )
    return Explanations(True, f"{until}, on a shared public endpoint.")
