"""Computing in half precision what gains by it: products and convolutions, and what simply follows them.

Values are cast where they enter and leave such a part of the graph. Sums over many elements, exponentials and
normalizations stay in float32, which they need; TensorFlow's own automatic mixed precision draws the line alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_BFLOAT16, DT_FLOAT, DT_HALF
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.python.framework import op_def_registry

from servegraph.rewriting import Precision
from servegraph.rewriting.graph import attr, node_name, tensors_of
from servegraph.rewriting.meta_graph import ServingGraph

_DTYPES = {"bfloat16": DT_BFLOAT16, "float16": DT_HALF}

# All have one output, of the dtype that the attribute `T` names.
_PRODUCTS = "MatMul BatchMatMul BatchMatMulV2 Einsum Conv2D Conv3D DepthwiseConv2dNative Conv2DBackpropInput"
_FOLLOWING = "BiasAdd AddV2 Add Relu Relu6 LeakyRelu MaxPool Identity Reshape Squeeze ExpandDims Transpose Pad"
PRODUCTS, FOLLOWING = frozenset(_PRODUCTS.split()), frozenset(_FOLLOWING.split())


def lowered_graph(graph: ServingGraph, precision: Precision) -> ServingGraph:
    """Return the graph with its main body in a lower precision; functions stay as they are."""
    fed = {
        node_name(tensor)
        for signature in graph.signatures.values()
        for info in signature.inputs.values()
        for tensor in tensors_of(info)
    }
    body = _Body(graph.nodes, lambda name, _: name, _DTYPES[precision], fed)
    nodes = body.rewritten()
    signatures = {}
    for name, signature in graph.signatures.items():
        signatures[name] = SignatureDef()
        signatures[name].CopyFrom(signature)
        for info in signatures[name].outputs.values():
            if info.WhichOneof("encoding") == "name" and (cast := body.raised(info.name)) != info.name:
                info.name = f"{cast}:0"
    return replace(graph, nodes={**nodes, **body.casts}, signatures=signatures)


def lowered_function(function: FunctionDef, precision: Precision) -> FunctionDef:
    """Return the function in a lower precision; what goes in and comes out keeps its dtype."""
    nodes = {node.name: node for node in function.node_def}
    body = _Body(nodes, lambda name, output: f"{name}:{output}:0", _DTYPES[precision], set())
    changed = body.rewritten()
    copy = FunctionDef()
    copy.CopyFrom(function)
    for output, tensor in function.ret.items():
        copy.ret[output] = body.raised(tensor)
    del copy.node_def[:]
    copy.node_def.extend([*changed.values(), *body.casts.values()])
    return copy


@dataclass
class _Body:
    """The nodes of a graph or function; `named` gives the tensor that is a node's output of some name."""

    nodes: Mapping[str, NodeDef]
    named: Callable[[str, str], str]
    dtype: int
    fed: set[str]
    casts: dict[str, NodeDef] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lowered = self._to_lower()

    def rewritten(self) -> dict[str, NodeDef]:
        """Return the nodes; what they need in another dtype comes from `casts`."""
        changed = {}
        for name, node in self.nodes.items():
            copy = changed[name] = NodeDef()
            copy.CopyFrom(node)
            typed = _typed_inputs(node) if name in self._lowered else ()
            if name in self._lowered:
                copy.attr["T"].type = self.dtype
            for position, tensor in enumerate(node.input):
                if position < len(typed) and typed[position]:
                    copy.input[position] = self._lower(tensor)
                elif name not in self._lowered:
                    copy.input[position] = self.raised(tensor)
        return changed

    def raised(self, tensor: str) -> str:
        """Return a tensor as it was before: one that is now of lower precision through a cast."""
        if tensor.startswith("^") or node_name(tensor) not in self._lowered:
            return tensor
        return self._cast(tensor, self.dtype, DT_FLOAT, "raised")

    def _lower(self, tensor: str) -> str:
        return tensor if node_name(tensor) in self._lowered else self._cast(tensor, DT_FLOAT, self.dtype, "lowered")

    def _cast(self, tensor: str, of: int, to: int, what: str) -> str:
        name = f"{tensor.replace(':', '_')}/{what}"
        while name in self.nodes:
            name += "_"
        node = self.casts[name] = NodeDef(name=name, op="Cast", input=[tensor])
        node.attr["SrcT"].type, node.attr["DstT"].type = of, to
        return self.named(name, "y")

    def _to_lower(self) -> set[str]:
        floats = {
            name: node for name, node in self.nodes.items() if attr(node, "T").type == DT_FLOAT and name not in self.fed
        }
        lowered = {name for name, node in floats.items() if node.op in PRODUCTS}
        following = {name: node for name, node in floats.items() if node.op in FOLLOWING}
        while found := {
            name for name, node in following.items() if any(node_name(i) in lowered for i in _data(node.input))
        }:
            lowered |= found
            following = {name: node for name, node in following.items() if name not in found}
        return lowered


def _data(inputs: Iterable[str]) -> Iterable[str]:
    return (tensor for tensor in inputs if not tensor.startswith("^"))


def _typed_inputs(node: NodeDef) -> list[bool]:
    """Return of each data input whether it has the dtype `T`."""
    flat = []
    for argument in op_def_registry.get(node.op).input_arg:
        count = node.attr[argument.number_attr].i if argument.number_attr else 1
        flat += [argument.type_attr == "T"] * count
    return flat
