"""The graph of a model for a GPU: a second MetaGraph that restores the same variables.

Only operations that have a GPU kernel for floats are placed there. All else is left to TensorFlow, which puts
variables where they are read and text, tables and integers on the CPU: TensorFlow Serving refuses a model that places
an operation where there is no kernel for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import get_args

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_BFLOAT16, DT_FLOAT, DT_HALF
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.python.framework import op_def_registry

from servegraph.rewriting import Precision
from servegraph.rewriting.graph import called_functions
from servegraph.rewriting.lower_precision import lowered_function, lowered_graph
from servegraph.rewriting.meta_graph import ServingGraph

GPU_TAGS = ("serve", "gpu")
DEVICE = "/device:GPU:0"
_MADE_HERE = "servegraph {serve} on a GPU in "  # what a MetaGraph's version says, and the precision

# Have a GPU kernel for all floats, by get_registered_kernels_for_op of TensorFlow 2.21 built for GPUs.
_WITH_A_KERNEL = """
    MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum Conv2D Conv3D DepthwiseConv2dNative Conv2DBackpropInput
    BiasAdd BiasAddV1 Relu Relu6 LeakyRelu Elu Selu Sigmoid Tanh Softmax LogSoftmax Erf
    Add AddV2 AddN Sub Mul RealDiv Neg Exp Log Sqrt Rsqrt Square SquaredDifference Pow Maximum Minimum
    Mean Sum Max Min Prod MaxPool AvgPool FusedBatchNormV3 Cast ConcatV2 Transpose Pad PadV2 Tile StridedSlice GatherV2
"""
PLACED = frozenset(_WITH_A_KERNEL.split())
_FLOATS = {DT_FLOAT, DT_HALF, DT_BFLOAT16}
# Run their functions as part of the request; those of others, such as a Dataset's, have devices of their own.
_RUNNING = {
    "PartitionedCall",
    "StatefulPartitionedCall",
    "If",
    "StatelessIf",
    "While",
    "StatelessWhile",
    "Case",
    "StatelessCase",
}


def for_gpu(graph: ServingGraph, precision: Precision = "float32") -> ServingGraph:
    """Return the MetaGraph {serve, gpu} with the answers of `graph`; with a lower precision nearly those.

    What the model itself places on another device is meant for the other graph, and gives way. Matrix products and
    convolutions, and what simply follows them, compute in `precision`; variables, inputs and outputs stay as they are,
    so that both graphs share what is stored.
    """
    running = _running(graph)
    if precision != "float32":
        library = {
            name: lowered_function(function, precision) if name in running else function
            for name, function in graph.library.items()
        }
        graph = replace(lowered_graph(graph, precision), library=library)
    original = MetaGraphDef()
    original.CopyFrom(graph.original)
    original.meta_info_def.tags[:] = GPU_TAGS
    original.meta_info_def.meta_graph_version = _MADE_HERE + precision
    return replace(
        graph,
        original=original,
        nodes={name: _placed(node) for name, node in graph.nodes.items()},
        library={name: _placed_function(f) if name in running else f for name, f in graph.library.items()},
    )


def precision_of(meta_graph: MetaGraphDef) -> Precision | None:
    """Return the precision of a MetaGraph that `for_gpu` made, None of any other."""
    info = meta_graph.meta_info_def
    if tuple(info.tags) != GPU_TAGS or not info.meta_graph_version.startswith(_MADE_HERE):
        return None
    known = {name: name for name in get_args(Precision)}
    return known.get(info.meta_graph_version.removeprefix(_MADE_HERE))


def placed_nodes(graph: ServingGraph) -> int:
    """Return how many nodes are placed on the GPU, in the main graph and in functions."""
    return sum(node.device == DEVICE for body in _bodies(graph) for node in body)


def _bodies(graph: ServingGraph) -> Iterator[Iterable[NodeDef]]:
    yield graph.nodes.values()
    for function in graph.library.values():
        yield function.node_def


def _running(graph: ServingGraph) -> set[str]:
    """Return the functions that requests run, but those that another kind of operation can call as well."""
    calls: list[NodeDef] = []
    others: list[NodeDef] = []
    for body in _bodies(graph):
        for node in body:
            (calls if node.op in _RUNNING else others).append(node)
    return _called(calls, graph.library) - called_functions(others, graph.library)


def _called(nodes: Iterable[NodeDef], library: Mapping[str, FunctionDef]) -> set[str]:
    names = {a.func.name for node in nodes for a in node.attr.values()}
    names |= {f.name for node in nodes for a in node.attr.values() for f in a.list.func}
    return names & library.keys()


def _placed(node: NodeDef) -> NodeDef:
    if node.op not in PLACED or not _computes_floats(node):
        return node
    copy = NodeDef()
    copy.CopyFrom(node)
    copy.device = DEVICE
    return copy


def _placed_function(function: FunctionDef) -> FunctionDef:
    copy = FunctionDef()
    copy.CopyFrom(function)
    for number, node in enumerate(function.node_def):
        copy.node_def[number].CopyFrom(_placed(node))
    return copy


def _computes_floats(node: NodeDef) -> bool:
    """Whether all typed inputs and outputs but indices are floats."""
    definition = op_def_registry.get(node.op)
    if definition is None:
        return False
    names = {arg.type_attr for arg in (*definition.input_arg[:1], *definition.output_arg) if arg.type_attr}
    return all(name in node.attr and node.attr[name].type in _FLOATS for name in names)
