"""Random numbers and a time of day that are the same at each load: what is answered with them could not be compared."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry

from servegraph.saved_model_loading import loaded_with

_SEEDS = ("seed", "seed2")
_SEED = 1  # of all operations alike: they are named differently once a graph is rewritten
_CLOCK = "Timestamp"  # the operation
_UNSEEDABLE = "NonDeterministicInts"  # has no seed, as it is there to make some
NOW = 1.7e9  # seconds since 1970, in 2023


def same_draws() -> AbstractContextManager[None]:
    """Within, whatever this process loads draws the same numbers at each load, in the order of its calls.

    Where it looks at the clock, it is always the same time.
    """
    return loaded_with(_seed)


@contextlib.contextmanager
def at_time(seconds: float) -> Iterator[list[str]]:
    """Within, it is `seconds` since 1970 in whatever this process loads, and numbers are drawn as ever.

    The list gets the names of the operations that look at the clock.
    """
    clocks: list[str] = []
    with loaded_with(lambda saved_model: clocks.extend(_stop_clock(saved_model, seconds))):
        yield clocks


def _seed(saved_model: SavedModel) -> None:
    for node in filter(_is_unseeded, _nodes(saved_model)):
        for name in _SEEDS:
            node.attr[name].i = _SEED
    for meta_graph in saved_model.meta_graphs:
        _draw_one(meta_graph.graph_def.node, "{}")
        for function in meta_graph.graph_def.library.function:
            _draw_one(function.node_def, "{}:output:0")
    _stop_clock(saved_model, NOW)


def _draw_one(nodes: Any, output: str) -> None:
    """Let what draws integers without a seed give the same one for all; `output` is how the nodes name a constant's."""
    for node in [node for node in nodes if node.op == _UNSEEDABLE]:
        dtype, shape_dtype = node.attr["dtype"].type or tf.int64, node.attr["shape_dtype"].type or tf.int64
        constant = nodes.add(name=f"{node.name}/{_UNSEEDABLE}", op="Const", device=node.device)
        constant.attr["dtype"].type = tf.as_dtype(dtype).as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(_SEED, dtype))
        node.op = "Fill"  # whose output has the same name in a function
        node.input.insert(1, output.format(constant.name))
        node.attr.clear()
        node.attr["T"].type = tf.as_dtype(dtype).as_datatype_enum
        node.attr["index_type"].type = tf.as_dtype(shape_dtype).as_datatype_enum


def _stop_clock(saved_model: SavedModel, seconds: float) -> list[str]:
    for meta_graph in saved_model.meta_graphs:
        for function in meta_graph.graph_def.library.function:  # which names an output as its operation does
            constants = {
                f"{node.name}:ts:0": f"{node.name}:output:0" for node in function.node_def if node.op == _CLOCK
            }
            for node in function.node_def if constants else ():
                node.input[:] = [constants.get(tensor, tensor) for tensor in node.input]
            for name, tensor in function.ret.items():
                function.ret[name] = constants.get(tensor, tensor)
    stopped = [node for node in _nodes(saved_model) if node.op == _CLOCK]
    for node in stopped:
        node.op = "Const"
        node.attr["dtype"].type = tf.float64.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(seconds, tf.float64))
    return [node.name for node in stopped]


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
