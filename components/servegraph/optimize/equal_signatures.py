"""Signatures that compute the same, such as the `serve` and `serving_default` of a Keras export, share one graph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from servegraph.optimize.inline import has_own_state, may_vary
from servegraph.rewriting.graph import is_handle, node_name
from servegraph.rewriting.meta_graph import ServingGraph

_FIRST = "serving_default"  # the name that stays in the graph where several compute the same
_PLACEHOLDERS = ("Placeholder", "PlaceholderWithDefault")
Digest = bytes


class _OwnState(Exception):  # not an error
    """There is an operation that keeps a state of its own, as one that draws numbers does."""


class _Cyclic(Exception):  # not an error
    """There is a loop of TF1: what is computed in it has no digest before what it needs has one."""


def share_signatures(graph: ServingGraph) -> ServingGraph:
    """Let signatures with the same inputs whose outputs are computed the same way name the same tensors."""
    same = computed_as(graph)
    signatures = {
        name: _naming_tensors_of(signature, graph.signatures[same[name]]) if name in same else signature
        for name, signature in graph.signatures.items()
    }
    return replace(graph, signatures=signatures)


def steady_signatures(graphs: Iterable[ServingGraph]) -> dict[tuple[str, ...], dict[str, str]]:
    """Return, by its tags, of each graph that answers whatever was asked before which signatures compute the same."""
    return {tuple(graph.original.meta_info_def.tags): computed_as(graph) for graph in graphs if not may_vary(graph)}


def computed_as(graph: ServingGraph) -> dict[str, str]:
    """Return, for each signature that computes the same as one before it, the first such one, the default before all.

    They have the same inputs, and their outputs are computed the same way.
    """
    digests = _Digests(graph)
    first: dict[object, str] = {}
    same = {}
    for name in sorted(graph.signatures, key=lambda name: (name != _FIRST, name)):
        key = digests.of_signature(graph.signatures[name])
        if key is not None and first.setdefault(key, name) != name:
            same[name] = first[key]
    return same


def _naming_tensors_of(signature: SignatureDef, same: SignatureDef) -> SignatureDef:
    made = SignatureDef()
    made.CopyFrom(signature)
    for infos, others in ((made.inputs, same.inputs), (made.outputs, same.outputs)):
        for name in infos:
            infos[name].name = others[name].name
    return made


class _Digests:
    """Digests of tensors by how they are computed, whatever the nodes and functions are called.

    Resources count by their node: two of them are never the same.
    """

    def __init__(self, graph: ServingGraph) -> None:
        self._graph = graph
        self._functions: dict[str, Digest | None] = {}  # None: there is an operation with a state of its own in it

    def of_signature(self, signature: SignatureDef) -> object | None:
        """Return what two signatures must have in common to be one; None if an input or output is composite.

        Neither where an input is no placeholder, as other outputs of its operation are still computed, where there is a
        loop, or where an operation has a state of its own.
        """
        infos = [*signature.inputs.values(), *signature.outputs.values()]
        if any(info.WhichOneof("encoding") != "name" for info in infos):
            return None
        fed = {node_name(info.name): name for name, info in signature.inputs.items()}
        if len(fed) != len(signature.inputs) or any(self._graph.nodes[name].op not in _PLACEHOLDERS for name in fed):
            return None

        def leaf(node: NodeDef) -> Digest | None:
            if node.name in fed:
                return _hash(b"input", fed[node.name].encode())
            return _hash(b"handle", node.name.encode()) if is_handle(node) else None

        nodes = self._graph.nodes
        computed = {("output", name): info.name for name, info in signature.outputs.items()}
        computed |= {("default", key): nodes[name].input[0] for name, key in fed.items() if nodes[name].input}
        try:
            node_digests = self._nodes(nodes, leaf, [node_name(tensor) for tensor in computed.values()])
        except (_Cyclic, _OwnState):
            return None
        digests = {
            key: (node_digests[node_name(tensor)], tensor.partition(":")[2] or "0") for key, tensor in computed.items()
        }
        inputs = [
            (name, info.dtype, info.tensor_shape.SerializeToString(deterministic=True))
            for name, info in sorted(signature.inputs.items())
        ]
        return (tuple(inputs), tuple(sorted(digests.items())))

    def _nodes(
        self,
        nodes: Mapping[str, NodeDef],
        leaf: Callable[[NodeDef], Digest | None],
        roots: list[str],
        arguments: Mapping[str, Digest] | None = None,
    ) -> dict[str, Digest]:
        """Return the digests of the roots and all they need; `arguments` are known before."""
        found: dict[str, Digest] = dict(arguments or {})
        opened: set[str] = set()
        stack = [(root, False) for root in roots]
        while stack:
            name, is_ready = stack.pop()
            if name in found or (name in opened and not is_ready):
                continue
            node = nodes[name]
            if (known := leaf(node)) is not None:
                found[name] = known
            elif is_ready:
                found[name] = self._node(node, found)
            else:
                opened.add(name)
                stack.append((name, True))
                stack.extend((node_name(tensor), False) for tensor in node.input)
        return found

    def _node(self, node: NodeDef, found: Mapping[str, Digest]) -> Digest:
        if has_own_state(node):
            raise _OwnState
        op = self._function(node.op) if node.op in self._graph.library else node.op.encode()
        parts = [op, node.device.encode()]
        for key, value in sorted(node.attr.items()):
            if not key.startswith("_"):
                parts += [key.encode(), self._attr(value)]
        if any(node_name(t) not in found for t in node.input):
            raise _Cyclic
        control = sorted(found[node_name(t)] for t in node.input if t.startswith("^"))
        data = [t for t in node.input if not t.startswith("^")]
        parts += [_hash(found[node_name(t)], t.partition(":")[2].encode() or b"0") for t in data]
        return _hash(*parts, b"^", *control)

    def _attr(self, value: AttrValue) -> bytes:
        kind = value.WhichOneof("value")
        if kind == "func":
            return self._function_attr(value.func)
        if kind == "list" and value.list.func:
            return b"".join(map(self._function_attr, value.list.func))
        content: bytes = value.SerializeToString(deterministic=True)
        return content

    def _function_attr(self, func: NameAttrList) -> bytes:
        attrs = [key.encode() + self._attr(value) for key, value in sorted(func.attr.items())]
        return _hash(self._function(func.name), *attrs)

    def _function(self, name: str) -> Digest:
        if name not in self._functions:
            function = self._graph.library.get(name)
            self._functions[name] = _hash(b"name", name.encode())  # of a recursive call, and of what is not here
            if function is not None:
                self._functions[name] = self._of(function)
        found = self._functions[name]
        if found is None:
            raise _OwnState
        return found

    def _of(self, function: FunctionDef) -> Digest | None:
        if any(map(has_own_state, function.node_def)):
            return None
        try:
            return self._body(function)
        except _OwnState:  # of a function that it calls
            return None
        except _Cyclic:
            return self._functions[function.signature.name]

    def _body(self, function: FunctionDef) -> Digest:
        nodes = {node.name: node for node in function.node_def}
        arguments = {
            arg.name: _hash(b"argument", str(number).encode())
            for number, arg in enumerate(function.signature.input_arg)
        }
        ends = [function.ret[arg.name] for arg in function.signature.output_arg]
        effects = list(function.control_ret.values())
        found = self._nodes(nodes, lambda _: None, [node_name(end) for end in ends] + effects, arguments)
        types = [(arg.type, arg.is_ref) for arg in (*function.signature.input_arg, *function.signature.output_arg)]
        values = [_hash(found[node_name(end)], end.partition(":")[2].encode()) for end in ends]
        return _hash(repr(types).encode(), *values, b"^", *sorted(found[name] for name in effects))


def _hash(*parts: bytes) -> Digest:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
