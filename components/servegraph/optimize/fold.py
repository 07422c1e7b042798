"""The rung that computes beforehand what no request changes: batch norm, constants, sums of variables.

On the way functions are inlined, and operations that only pass a value on are taken out. Answers stay up to the
rounding of float32: a product with folded weights rounds in another place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.optimize.affine import TRANSPOSED, Affine, Chain, affine_of, find_chains
from servegraph.optimize.gathers import round_tables
from servegraph.optimize.inline import changes_state, inline
from servegraph.optimize.merge import merge_equal
from servegraph.optimize.statics import SMALL_BYTES, Statics  # a larger result is a variable
from servegraph.rewriting.contents import BFLOAT16, Content, Literal, Rounded, Scaled, Stored, digest, size_bytes
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.forms import HALVES, constant, is_zero_bias
from servegraph.rewriting.graph import Nodes, Untransformable, attr, behind_identities, node_name
from servegraph.rewriting.meta_graph import ServingGraph, keep_what_serves
from servegraph.rewriting.restores import variable
from servegraph.rewriting.switches import settle_switches
from servegraph.savedmodel.bundle_reader import BundleReader


def fold(draft: Draft) -> Draft:
    """Inline functions, fold batch norm into weights, compute what is static."""
    contents = dict(draft.contents)
    with draft.tensors() as tensors:
        folded = draft.with_graphs(lambda graph: _folded(graph, contents, tensors))
    return replace(folded, contents=contents).with_needed_contents()


def _folded(graph: ServingGraph, contents: dict[str, Content], tensors: BundleReader | None) -> ServingGraph:
    graph = keep_what_serves(settle_switches(graph))
    try:
        flat = inline(graph)
    except Untransformable:
        return graph
    if changes_state(flat):
        return flat
    editor = _Editor(flat, contents, tensors)
    editor.fold_chains()
    editor = _Editor(round_tables(keep_what_serves(editor.graph), contents), contents, tensors)
    editor.fold_statics()
    return keep_what_serves(merge_equal(keep_what_serves(editor.graph)))


class _Editor:
    """Edits a flat graph; `contents` gets the tensors that are computed."""

    def __init__(self, graph: ServingGraph, contents: dict[str, Content], tensors: BundleReader | None) -> None:
        self._graph = graph
        self._nodes: Nodes = dict(graph.nodes)
        self._contents = contents
        self._tensors = tensors
        self._restores = list(graph.restores)
        self._statics = Statics(graph, contents, tensors)
        self._made: dict[str, str] = {}  # variables by what they hold: equal values are held once

    @property
    def graph(self) -> ServingGraph:
        """The graph as it is now."""
        return replace(self._graph, nodes=self._nodes, restores=tuple(self._restores))

    def fold_chains(self) -> None:
        """Fold every chain of operations per channel into the product it begins with."""
        chains = find_chains(self._graph, self._statics)
        wanted = [tensor for chain in chains for tensor in chain.operands]
        wanted += [chain.weights for chain in chains if self._statics.key_of(chain.weights) is None]
        values = self._statics.values(wanted)
        for chain in chains:
            weights = self._weights(chain, values)
            if weights is None:
                continue
            affine = affine_of(chain, values, prod(_channels(chain.product, weights.shape)))
            if affine is not None:
                self._fold(chain, weights, affine)

    def fold_statics(self) -> None:
        """Replace what static operations compute by its value, where that does not make the model larger."""
        wanted: dict[str, list[NodeDef]] = {}
        for node in self._nodes.values():
            if self._statics.is_static(node.name):
                continue
            for tensor in node.input:
                if (
                    not tensor.startswith("^")
                    and self._statics.is_static(tensor)
                    and not self._statics.is_plain(tensor)
                ):
                    wanted.setdefault(tensor, []).append(node)
        rounded = {tensor: found for tensor in wanted if (found := self._rounded(tensor)) is not None}
        values = self._statics.values(tensor for tensor in wanted if tensor not in rounded)
        values = {tensor: value for tensor, value in values.items() if _is_number(value.dtype)}
        sizes = {tensor: value.nbytes for tensor, value in values.items()}
        sizes |= {tensor: size_bytes(content) for tensor, (_, content) in rounded.items()}
        for tensor in self._worth_folding(sizes):
            name = f"{tensor.replace(':', '_')}/folded"
            if tensor in rounded:
                made = self._variable(name, *rounded[tensor])
            else:
                made = self._named(name, Literal(values[tensor], self._statics.origins(tensor)))
            for node in wanted[tensor]:
                current = self._nodes[node.name]
                self._replace(current, [made if t == tensor else t for t in current.input])

    def _rounded(self, tensor: str) -> tuple[str, Rounded] | None:
        """Return a large variable that is cast to half precision, as mixed precision does at each request, with a key.

        It is read a part at a time, so that its size does not matter.
        """
        cast = self._nodes[node_name(behind_identities(tensor, self._nodes))]
        if cast.op != "Cast" or attr(cast, "Truncate").b or (key := self._statics.key_of(cast.input[0])) is None:
            return None
        content, dtype = self._contents[key], tf.as_dtype(cast.attr["DstT"].type).name
        if not isinstance(content, (Stored, Scaled, Literal)) or content.dtype != "float32" or dtype not in HALVES:
            return None
        found = Rounded(content, dtype)
        return (f"{key}:{dtype}", found) if size_bytes(found) > SMALL_BYTES else None

    def _worth_folding(self, sizes: Mapping[str, int]) -> list[str]:
        """Return what is small, or takes the place of weights that are as large and that nothing else needs."""
        weights = {
            tensor: {name for name, held in self._statics.sources(tensor).items() if held > SMALL_BYTES}
            for tensor, size in sizes.items()
            if SMALL_BYTES < size <= self._statics.source_bytes(tensor)
        }
        while weights:
            needed = self._needed_without(set(weights))
            kept = {tensor: sources for tensor, sources in weights.items() if not sources & needed}
            if len(kept) == len(weights):
                break
            weights = kept
        return [tensor for tensor, size in sizes.items() if size <= SMALL_BYTES or tensor in weights]

    def _needed_without(self, tensors: set[str]) -> set[str]:
        """Return the nodes that the roots need when these tensors are given."""
        found: set[str] = set()
        stack = list(self._graph.roots)
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack.extend(node_name(tensor) for tensor in self._nodes[name].input if tensor not in tensors)
        return found

    def _weights(self, chain: Chain, values: dict[str, NDArray[Any]]) -> Stored | Literal | None:
        key = self._statics.key_of(chain.weights)
        if key is None:
            origins = self._statics.origins(chain.weights)
            return Literal(values[chain.weights], origins) if chain.weights in values else None
        content = self._contents[key]
        return content if isinstance(content, (Stored, Literal)) else None

    def _fold(self, chain: Chain, weights: Stored | Literal, affine: Affine) -> None:
        steps = chain.steps[: affine.steps]
        last, moves = steps[-1].node, [step.node for step in steps if step.moves]
        scale = affine.scale.astype(np.float32)
        product = chain.product
        if not (scale == 1).all():
            scaled = self._scaled(f"{last.name}/weights", weights, scale.reshape(_channels(product, weights.shape)))
            self._replace(product, [product.input[0], scaled, *product.input[2:]])
        # Right behind the product, because TensorFlow fuses them there; what moves values follows.
        name = self._free(f"{last.name}/added") if moves else last.name
        if affine.offset is None:
            added = NodeDef(name=name, op="Identity", device=last.device, input=[product.name])
        else:
            bias = self._named(f"{last.name}/bias", Literal(affine.offset.astype(np.float32)))
            added = NodeDef(name=name, op="BiasAdd", device=last.device, input=[product.name, bias])
            added.attr["data_format"].s = b"NHWC"
        added.attr["T"].type = tf.float32.as_datatype_enum
        self._nodes[name] = added
        for move in moves:
            name = last.name if move is moves[-1] else move.name
            self._replace(move, [added.name, *move.input[1:]], name)
            added = self._nodes[name]

    def _scaled(self, name: str, weights: Stored | Literal, scale: NDArray[np.float32]) -> str:
        if isinstance(weights, Literal) and weights.values.nbytes <= SMALL_BYTES:
            return self._named(name, Literal(weights.values * scale, weights.origins))
        # By its content: what two MetaGraphs compute alike is stored once.
        source = weights.key if isinstance(weights, Stored) else digest(weights.values)
        return self._variable(name, f"{source}:times-{digest(scale)}", Scaled(weights, scale))

    def _named(self, name: str, content: Literal) -> str:
        """Return a tensor that holds the values: a constant, or a variable where they are large or a bias of zeros."""
        values = content.values
        if (values.nbytes <= SMALL_BYTES and not is_zero_bias(values)) or values.dtype.kind == "b":
            return constant(self._nodes, self._free(name), values, str(values.dtype))
        return self._variable(name, f"folded-{digest(values)}", content)

    def _variable(self, name: str, key: str, content: Content) -> str:
        if key not in self._made:
            self._contents.setdefault(key, content)
            self._made[key] = name = self._free(name)
            self._restores.append(variable(self._nodes, name, key, content))
        return self._made[key]

    def _free(self, name: str) -> str:
        number, free = 0, name
        while free in self._nodes or f"{free}/handle" in self._nodes:
            number += 1
            free = f"{name}_{number}"
        return free

    def _replace(self, node: NodeDef, inputs: list[str], name: str = "") -> None:
        """Put the same operation on other inputs in its place, or in that of another node."""
        copy = NodeDef()
        copy.CopyFrom(node)
        copy.name = name or node.name
        copy.input[:] = inputs
        self._nodes[copy.name] = copy


def _channels(product: NodeDef, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a factor for each channel, as it broadcasts against weights of this shape."""
    if product.op in TRANSPOSED:
        return (shape[-2], 1)
    return shape[-2:] if product.op == "DepthwiseConv2dNative" else shape[-1:]


def _is_number(dtype: np.dtype[Any]) -> bool:
    """Whether values may stand in the graph or be a variable: numpy takes bfloat16 for no number of its own."""
    return dtype.kind in "fiub" or dtype == BFLOAT16
