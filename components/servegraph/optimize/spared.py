"""Which signatures need no records of their own, because others are asked for all of their weights."""

from __future__ import annotations

from servegraph.answers.evidence import Evidence
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.graph import node_name, reachable, tensors_of
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.rewriting.weights import loosen, weights_of


def spared(draft: Draft, evidence: Evidence) -> frozenset[tuple[tuple[str, ...], str]]:
    """Return the signatures, by tags and name, all of whose weights real records asked, but through others.

    Their made-up records, the same request in another form perhaps, are often near a tie and would count as loss.
    """
    real = {(q.tags, q.signature) for q in evidence.questions if not q.samples.generated}
    if not real or all((q.tags, q.signature) in real for q in evidence.questions):
        return frozenset()
    loose = loosen(draft)
    large = {weight.key for weight in weights_of(loose)}
    weights: dict[tuple[tuple[str, ...], str], set[str]] = {}
    for graph in loose.serving_graphs:
        tags = tuple(graph.original.meta_info_def.tags)
        weights |= {(tags, name): _weights(graph, name) & large for name in graph.signatures}
    asked = {key for signature in real & weights.keys() for key in weights[signature]}
    return frozenset(signature for signature, its in weights.items() if signature not in real and its <= asked)


def _weights(graph: ServingGraph, signature: str) -> set[str]:
    """Return the keys of the tensors that fill what a signature's outputs need."""
    outputs = graph.signatures[signature].outputs.values()
    needed = reachable(graph.nodes, (node_name(tensor) for info in outputs for tensor in tensors_of(info)))
    return {tensor.key for restore in graph.restores if restore.handle in needed for tensor in restore.tensors}
