"""Reading and walking GraphDefs: tensor names, what reaches what, which functions are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.framework.types_pb2 import DT_RESOURCE
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo
from tensorflow.python.framework import op_def_registry

from servegraph.tensor_values import values_of

Nodes = dict[str, NodeDef]
CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
SWITCHES = {"Switch", "RefSwitch", "_SwitchN"}  # the last is what TensorFlow makes of a Case
CONTROL_FLOW = SWITCHES | {"Merge", "RefMerge", "Enter", "RefEnter", "Exit", "RefExit", "LoopCond"}
CONTROL_FLOW |= {"NextIteration", "RefNextIteration"}


class Untransformable(Exception):  # not an error: the MetaGraph stays as it is
    """A MetaGraph cannot be taken apart safely; the message completes "…, because"."""


def attr(node: NodeDef, name: str) -> AttrValue:
    """Return an attribute, or an empty one; asking a NodeDef for what it lacks would add it."""
    return node.attr[name] if name in node.attr else AttrValue()


def node_name(tensor: str) -> str:
    """Return the node of a tensor name: `^x`, `x:1` and `x` are all of node `x`."""
    return tensor.lstrip("^").partition(":")[0]


def redirected(tensor: str, same: Mapping[str, str]) -> str:
    """Return the tensor of the node that stands for this tensor's, where `same` names one."""
    name = node_name(tensor)
    return tensor.replace(name, same[name], 1) if name in same else tensor


def renamed(nodes: Mapping[str, NodeDef], names: Mapping[str, str]) -> Nodes:
    """Return copies of the nodes, those that `names` has called so, in inputs as well."""
    found: Nodes = {}
    for name, node in nodes.items():
        copy = found[names.get(name, name)] = NodeDef()
        copy.CopyFrom(node)
        copy.name = names.get(name, name)
        copy.input[:] = [redirected(tensor, names) for tensor in node.input]
    return found


def free_prefix(nodes: Mapping[str, NodeDef], wanted: str) -> str:
    """Return a name that no node has, and below which there is none: this one, or with a number behind."""
    prefix, number = wanted, 0
    while any(name == prefix or name.startswith(f"{prefix}/") for name in nodes):
        number += 1
        prefix = f"{wanted}_{number}"
    return prefix


def output_index(tensor: str) -> int:
    """Return which output of its node a tensor is."""
    return int(tensor.partition(":")[2] or 0)


def behind_identities(tensor: str, nodes: Mapping[str, NodeDef]) -> str:
    """Return the tensor that one gets through a chain of Identity operations."""
    while (node := nodes.get(node_name(tensor))) is not None and node.op == "Identity":
        tensor = node.input[0]
    return tensor


def tensors_of(info: TensorInfo) -> list[str]:
    """Return the names of all tensors behind an input or output of a signature."""
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        sparse = info.coo_sparse
        return [sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
    if kind == "composite_tensor":
        return [tensor for part in info.composite_tensor.components for tensor in tensors_of(part)]
    return [info.name]


def reachable(nodes: Mapping[str, NodeDef], roots: Iterable[str]) -> set[str]:
    """Return the nodes that the roots need, through data and control inputs, themselves included."""
    found: set[str] = set()
    stack = list(roots)
    while stack:
        name = stack.pop()
        if name in found:
            continue
        if name not in nodes:
            raise Untransformable(f"a node {name!r} is needed and not there")
        found.add(name)
        stack.extend(node_name(tensor) for tensor in nodes[name].input)
    return found


def in_order(nodes: Mapping[str, NodeDef]) -> list[str]:
    """Return the nodes, each after its inputs; within a loop, as far as that is possible."""
    order: list[str] = []
    state: dict[str, int] = {}
    for root in nodes:
        stack = [root]
        while stack:
            name = stack[-1]
            if state.get(name) is None:
                state[name] = 1
                stack.extend(n for t in nodes[name].input if state.get(n := node_name(t)) is None)
            else:
                stack.pop()
                if state[name] == 1:
                    state[name] = 2
                    order.append(name)
    return order


def called_functions(nodes: Iterable[NodeDef], library: Mapping[str, FunctionDef]) -> set[str]:
    """Return the functions of the library that the nodes can call, directly or not.

    TensorFlow puts a form for a GPU in the place of a function that implements the same: those count as called.
    """
    forms: dict[bytes, list[str]] = {}
    for name, function in library.items():
        if interface := _interface(function):
            forms.setdefault(interface, []).append(name)
    found: set[str] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        names = [node.op]
        for attr in node.attr.values():
            kind = attr.WhichOneof("value")
            if kind == "func":
                names.append(attr.func.name)
            elif kind == "list":
                names.extend(function.name for function in attr.list.func)
        for name in [form for called in names for form in (called, *_forms(called, library, forms))]:
            if name in library and name not in found:
                found.add(name)
                stack.extend(library[name].node_def)
    return found


def _forms(name: str, library: Mapping[str, FunctionDef], forms: Mapping[bytes, list[str]]) -> list[str]:
    return forms.get(_interface(library[name]), []) if name in library else []


def _interface(function: FunctionDef) -> bytes:
    """Return what functions have in common of which TensorFlow takes the one for its device, empty if it is none.

    Those for training, with other outputs, and gradients do not count: tensorflow/core/grappler/optimizers/
    function_api_info.cc.
    """
    if "api_implements" not in function.attr:
        return b""
    signature = function.signature
    types = [[arg.type for arg in args] for args in (signature.input_arg, signature.output_arg)]
    return bytes(function.attr["api_implements"].s) + str(types).encode()


def is_handle(node: NodeDef) -> bool:
    """Whether the node makes a resource: a variable, a table, an iterator; nothing goes in, a handle comes out."""
    definition = op_def_registry.get(node.op)
    if definition is None or not definition.is_stateful or any(not t.startswith("^") for t in node.input):
        return False
    return any(out.type == DT_RESOURCE or out.is_ref for out in definition.output_arg)


def takes_reference(node: NodeDef, position: int) -> bool:
    """Whether the operation changes the TF1 reference variable at this input instead of reading it."""
    definition = op_def_registry.get(node.op)
    if definition is None:
        return True
    for is_reference, count in inputs_taken(node, definition):
        if position < count:
            return is_reference
        position -= count
    return True


def inputs_taken(node: NodeDef, definition: OpDef) -> Iterator[tuple[bool, int]]:
    """Yield, for each argument of its operation, whether it is a TF1 reference and how many inputs it is."""
    defaults = {attribute.name: attribute.default_value for attribute in definition.attr}
    for arg in definition.input_arg:
        name = arg.number_attr or arg.type_list_attr
        value = node.attr[name] if name in node.attr else defaults.get(name, AttrValue())
        yield arg.is_ref, value.i if arg.number_attr else len(value.list.type) if arg.type_list_attr else 1


def takes_rows(node: NodeDef, nodes: Nodes) -> bool:
    """Whether a gather takes rows of a whole table, as ResourceGather and TF1's Gather do without batch dimensions."""
    if attr(node, "batch_dims").i:
        return False
    if node.op in ("ResourceGather", "Gather"):
        return True
    axis = nodes[node_name(node.input[2])]
    return axis.op == "Const" and not values_of(axis.attr["value"].tensor).any()
