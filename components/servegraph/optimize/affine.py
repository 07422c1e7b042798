"""Batch norm, and whatever else multiplies and adds per channel, folded into the convolution or product before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.optimize.statics import Statics
from servegraph.rewriting.graph import Nodes, attr, node_name, output_index
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.tensor_values import values_of

Values = NDArray[np.float64]

# The products whose last output dimension is a channel of the weights, with the rank of their output. A batch of
# matrices, as a Dense layer of rank 3 multiplies in Keras 3.12, has any: what needs to know it is not folded.
_RANKS = {"Conv2D": 4, "DepthwiseConv2dNative": 4, "MatMul": 2, "Conv3D": 5, "BatchMatMul": 1, "BatchMatMulV2": 1}
# The products of a transposed convolution: the channels of their output are the weights' last dimension but one.
TRANSPOSED = {"Conv2DBackpropInput": 4, "Conv3DBackpropInputV2": 5}
_RANKS |= TRANSPOSED
# They put values elsewhere and leave each in its channel, so that what is per channel may as well be done before them:
# a convolution in one dimension ends in a Squeeze, a dilated one in BatchToSpaceND, a product of rank 3 in a Reshape.
_MOVES = {"Squeeze", "Reshape", "BatchToSpaceND"}
_ADDITIONS = ("BiasAdd", "Add", "AddV2", "Sub")
_FACTORS = ("Mul", "RealDiv", "Div")
_BATCH_NORMS = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}
_DEFAULT_EPSILON = 1e-4  # of the operation
_CHANNELS_LAST = (b"", b"NHWC", b"NDHWC")
_FLOAT = tf.float32.as_datatype_enum
_SIGNATURE = NodeDef()  # reads what is answered, and what is asked


@dataclass(frozen=True)
class Link:
    """One operation of a chain; its result has at least `rank`, and `width` elements in its last dimension if given."""

    node: NodeDef
    rank: int
    width: int | None = None

    @property
    def moves(self) -> bool:
        """Whether it only puts values elsewhere."""
        return self.node.op in _MOVES


@dataclass(frozen=True)
class Chain:
    """A product and the operations behind it, each the only reader of the one before."""

    product: NodeDef
    steps: tuple[Link, ...]

    @property
    def weights(self) -> str:
        """The tensor that is multiplied with."""
        return str(self.product.input[1])

    @property
    def operands(self) -> list[str]:
        """The static tensors of all steps."""
        before = [self.product.name, *(step.node.name for step in self.steps)]
        return [t for step in self.steps if not step.moves for t in step.node.input if node_name(t) not in before]


@dataclass(frozen=True)
class Affine:
    """What a chain does after its product: `product * scale + offset`, float64 [channels].

    Where nothing is added `offset` is None: added zeros would be an operation too many.
    """

    scale: Values
    offset: Values | None
    steps: int  # of the chain that are in it


def find_chains(graph: ServingGraph, statics: Statics) -> list[Chain]:
    """Return the chains that could be folded; those with one addition only are as they should be already."""
    nodes, certain = graph.nodes, graph.certain_nodes
    readers: dict[str, list[tuple[NodeDef, str]]] = {}
    for node in nodes.values():
        for tensor in node.input:
            readers.setdefault(node_name(tensor), []).append((node, tensor))
    for tensor in graph.root_tensors:
        readers.setdefault(node_name(tensor), []).append((_SIGNATURE, tensor))
    chains = []
    for node in nodes.values():
        if not _is_product(node) or not statics.is_static(node.input[1]):
            continue
        steps: list[Link] = []
        last = Link(node, _RANKS[node.op])
        while (step := _next_step(last, readers, certain, statics)) is not None:
            steps.append(step)
            last = step
        calculating = [step for step in steps if not step.moves]
        if len(calculating) > 1 or (calculating and calculating[0].node.op not in _ADDITIONS):
            chains.append(Chain(node, tuple(steps)))
    return chains


def affine_of(chain: Chain, values: Mapping[str, NDArray[Any]], channels: int) -> Affine | None:
    """Return what the longest foldable beginning of a chain does, None if nothing is won by folding it."""
    scale: NDArray[np.float64] = np.ones(channels)
    offset: NDArray[np.float64] = np.zeros(channels)
    done, additions, multiplies, adds = 0, 0, False, False
    before = chain.product.name
    for number, step in enumerate(chain.steps, 1):
        if step.moves:
            if step.width not in (None, channels):
                break
        else:
            operands = [values.get(t) for t in step.node.input if node_name(t) != before]
            if any(value is None for value in operands):
                break
            vectors = [_vector(value, channels, step.rank) for value in operands if value is not None]
            if any(vector is None for vector in vectors):
                break
            with np.errstate(all="ignore"):  # what is not finite is refused below
                factor, term = _step(step.node, [vector for vector in vectors if vector is not None])
                scale, offset = scale * factor, offset * factor + term
            is_addition = step.node.op in _ADDITIONS
            done, additions, multiplies = number, additions + is_addition, multiplies or not is_addition
            adds = adds or step.node.op not in _FACTORS
        before = step.node.name
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        return None
    return Affine(scale, offset if adds else None, done) if multiplies or additions > 1 else None


def _is_product(node: NodeDef) -> bool:
    return (
        node.op in _RANKS
        and attr(node, "T").type == _FLOAT
        and attr(node, "data_format").s in _CHANNELS_LAST
        and not attr(node, "transpose_b").b
        and not attr(node, "adj_y").b
    )


def _next_step(
    last: Link, readers: Mapping[str, list[tuple[NodeDef, str]]], nodes: Nodes, statics: Statics
) -> Link | None:
    """Return the only reader of `last`, if it moves whole channels, or calculates per channel with static operands."""
    reading = readers.get(last.node.name, [])
    if len(reading) != 1:
        return None
    node, tensor = reading[0]
    if tensor.startswith("^") or output_index(tensor) or any(t.startswith("^") for t in node.input):
        return None
    if node.op in _MOVES:
        return _moved(node, last.rank, nodes) if node.input[0] == tensor else None
    calculating = _calculating(node, tensor, readers, statics)
    return Link(calculating, last.rank) if calculating else None


def _moved(node: NodeDef, rank: int, nodes: Nodes) -> Link | None:
    """Return an operation that takes a tensor of this rank, if it leaves values in their channel, the last dimension.

    A Reshape does where the last dimension is as long as before: its width says that, and of its rank that it has one.
    """
    if attr(node, "T").type != _FLOAT:
        return None
    if node.op == "Squeeze":
        dims = {dim % rank for dim in attr(node, "squeeze_dims").list.i}
        return Link(node, rank - len(dims)) if dims and rank - 1 not in dims else None
    if node.op == "BatchToSpaceND":
        sizes = nodes[node_name(node.input[1])]
        moved = attr(sizes, "value").tensor.tensor_shape.dim
        return Link(node, rank) if sizes.op == "Const" and moved[0].size < rank - 1 else None
    width = _last_size(node.input[1], nodes)
    return Link(node, 1, width) if width is not None else None


def _last_size(shape: str, nodes: Nodes) -> int | None:
    """Return the last element of a shape, None where it is computed."""
    node = nodes[node_name(shape)]
    if node.op == "Const" and not node.input:
        sizes = values_of(node.attr["value"].tensor).ravel()
        return int(sizes[-1]) if sizes.size else None
    return _last_size(node.input[attr(node, "N").i - 1], nodes) if node.op in ("Pack", "ConcatV2") else None


def _calculating(
    node: NodeDef, tensor: str, readers: Mapping[str, list[tuple[NodeDef, str]]], statics: Statics
) -> NodeDef | None:
    """Return the reader of a tensor, if it is one operation per channel with static operands."""
    others = [t for t in node.input if t != tensor]
    if len(others) != len(node.input) - 1 or not all(statics.is_static(t) for t in others):
        return None
    is_first = node.input[0] == tensor
    if node.op in _BATCH_NORMS:
        inference = not attr(node, "is_training").b and "is_training" in node.attr
        only_result = all(output_index(t) == 0 for _, t in readers.get(node.name, []))
        fits = is_first and inference and only_result and attr(node, "data_format").s in _CHANNELS_LAST
        return node if fits and attr(node, "T").type == _FLOAT else None
    if attr(node, "T").type != _FLOAT:
        return None
    if node.op == "BiasAdd":
        return node if is_first and attr(node, "data_format").s in _CHANNELS_LAST else None
    if node.op in ("Add", "AddV2", "Mul") or (node.op in ("Sub", "RealDiv", "Div") and is_first):
        return node
    return None


def _step(node: NodeDef, operands: list[Values]) -> tuple[Values, Values]:
    """Return factor and term of one operation."""
    if node.op in _BATCH_NORMS:
        gamma, beta, mean, variance = operands
        epsilon = node.attr["epsilon"].f if "epsilon" in node.attr else _DEFAULT_EPSILON
        factor = gamma / np.sqrt(variance + epsilon)
        return factor, beta - mean * factor
    (value,) = operands
    one, zero = np.ones_like(value), np.zeros_like(value)
    if node.op == "Mul":
        return value, zero
    if node.op in ("RealDiv", "Div"):
        return 1 / value, zero
    return one, -value if node.op == "Sub" else value


def _vector(value: NDArray[Any], channels: int, rank: int) -> Values | None:
    """Return an operand as float64 [channels], None where it is not the same for all rows and pixels."""
    is_per_channel = value.size == channels and (value.ndim == 0 or value.shape[-1] == channels)
    if value.ndim > rank or not (value.size == 1 or is_per_channel):
        return None
    return np.broadcast_to(value.astype(np.float64).ravel(), (channels,))
