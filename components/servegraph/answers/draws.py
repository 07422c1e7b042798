"""Random numbers that are the same at each load: what a model answers that draws some could not be compared else."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from contextlib import AbstractContextManager

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry

from servegraph.saved_model_loading import loaded_with

_SEEDS = ("seed", "seed2")
_SEED = 1  # of all operations alike: they are named differently once a graph is rewritten


def same_draws() -> AbstractContextManager[None]:
    """Within, whatever this process loads draws the same numbers at each load, in the order of its calls."""
    return loaded_with(_seed)


def _seed(saved_model: SavedModel) -> None:
    for node in filter(_is_unseeded, _nodes(saved_model)):
        for name in _SEEDS:
            node.attr[name].i = _SEED


def _is_unseeded(node: NodeDef) -> bool:
    """Whether the operation draws other numbers in every process: it has two seeds, and both are 0."""
    return _has_seeds(node.op) and not any(node.attr[name].i for name in _SEEDS if name in node.attr)


@functools.cache
def _has_seeds(op: str) -> bool:
    definition = op_def_registry.get(op)
    return definition is not None and {*_SEEDS} <= {attribute.name for attribute in definition.attr}


def _nodes(saved_model: SavedModel) -> Iterable[NodeDef]:
    for meta_graph in saved_model.meta_graphs:
        yield from meta_graph.graph_def.node
        for function in meta_graph.graph_def.library.function:
            yield from function.node_def
