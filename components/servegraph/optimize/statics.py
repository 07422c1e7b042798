"""What of a flat graph is known before any request: constants, variables that nothing changes, and what follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_RESOURCE, DT_STRING, DT_VARIANT
from tensorflow.python.framework import op_def_registry

from servegraph.errors import ModelError
from servegraph.optimize.evaluated import evaluated, outputs_of
from servegraph.rewriting.contents import Content, read_values, size_bytes
from servegraph.rewriting.graph import CONTROL_FLOW, behind_identities, node_name
from servegraph.rewriting.handles import written_by
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.savedmodel.bundle_reader import BundleReader

MOST_BYTES = 32_000_000  # of the variables and constants that one evaluated tensor may need, and of what is on the way
SMALL_BYTES = 1024  # a result up to this is no burden to the graph
_NEVER = CONTROL_FLOW | {"Placeholder", "PlaceholderWithDefault", "CheckNumerics", "Where"}


class Statics:
    """The static tensors of a flat graph, evaluated on demand with TensorFlow's own operations."""

    def __init__(self, graph: ServingGraph, contents: Mapping[str, Content], tensors: BundleReader | None) -> None:
        """Take a graph in which no request changes a variable."""
        self._nodes = graph.nodes
        self._fed = graph.fed
        self._contents = contents
        self._tensors = tensors
        written = written_by(graph.initializers, graph.nodes)
        self._keys = {
            restore.handle: restore.tensors[0].key
            for restore in graph.restores
            if len(restore.tensors) == 1 and not restore.tensors[0].slice_spec and not restore.tensors[0].part
            if restore.handle not in written
        }
        self._known: dict[str, bool] = {}

    def is_static(self, tensor: str) -> bool:
        """Whether a tensor is the same for every request."""
        stack = [node_name(tensor)]
        opened: set[str] = set()
        while stack:
            name = stack[-1]
            if name in self._known:
                stack.pop()
                continue
            node = self._nodes[name]
            if name in self._fed or not self._may_be(node):
                # A constant with a control edge belongs to a branch or a loop.
                is_held = (node.op == "Const" and not node.input) or self._is_read(node)
                self._known[name] = is_held and name not in self._fed
                continue
            pending = [n for t in node.input if (n := node_name(t)) not in self._known and n not in opened]
            opened.add(name)
            if pending:
                stack += pending
            else:
                self._known[name] = all(self._known.get(node_name(t), False) for t in node.input)
        return self._known[node_name(tensor)]

    def key_of(self, tensor: str) -> str | None:
        """Return the checkpoint key of a tensor that is a variable as it is stored, None for any other."""
        node = self._nodes[node_name(behind_identities(tensor, self._nodes))]
        return self._keys[self._handle(node)] if self._is_read(node) else None

    def is_plain(self, tensor: str) -> bool:
        """Whether a static tensor is a constant or a variable as it is stored."""
        return self._nodes[node_name(behind_identities(tensor, self._nodes))].op == "Const" or bool(self.key_of(tensor))

    def sources(self, tensor: str) -> dict[str, int]:
        """Return the bytes of all variables and constants that a static tensor is computed from, by their node."""
        found = {}
        for name in self._cone([tensor]):
            node = self._nodes[name]
            if node.op == "Const":
                found[name] = node.attr["value"].ByteSize()
            elif self._is_read(node):
                handle = self._handle(node)
                found[handle] = size_bytes(self._contents[self._keys[handle]])
        return found

    def origins(self, tensor: str) -> tuple[str, ...]:
        """Return the keys of the original checkpoint that a static tensor is computed from."""
        behind = (self._contents[self._keys[source]] for source in self.sources(tensor) if source in self._keys)
        return tuple(sorted({key for content in behind for key in content.origins}))

    def source_bytes(self, tensor: str) -> int:
        """Return the size of all variables and constants that a static tensor is computed from."""
        return sum(self.sources(tensor).values())

    def values(self, wanted: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return the values of static tensors by name; those that need too much memory are left out.

        So are those known to be larger than what they are computed from and `SMALL_BYTES`, which nobody wants.
        """
        affordable = [tensor for tensor in dict.fromkeys(wanted) if self.source_bytes(tensor) <= MOST_BYTES]
        if not affordable:
            return {}
        definition, contents = GraphDef(), {}
        for name in self._cone(affordable):
            node = self._nodes[name]
            copy = definition.node.add()
            if self._is_read(node):
                copy.name, copy.op = name, "Placeholder"
                copy.attr["dtype"].CopyFrom(node.attr["dtype"])
                content = self._contents[self._keys[self._handle(node)]]
                copy.attr["shape"].shape.CopyFrom(tf.TensorShape(content.shape).as_proto())
                contents[name] = content
            else:
                copy.CopyFrom(node)
                copy.device = ""
                copy.attr.pop("_class", None)
        try:
            known = outputs_of(definition)
        except ModelError:  # nothing of it can be computed
            return {}
        small = [
            tensor
            for tensor in affordable
            if self._is_modest(tensor, known.largest_bytes) and node_name(tensor) not in known.odd
        ]
        needed = self._cone(small)
        feeds = {f"{name}:0": read_values(held, self._tensors) for name, held in contents.items() if name in needed}
        return dict(evaluated(definition, small, feeds))

    def _is_modest(self, tensor: str, sizes: Mapping[str, int]) -> bool:
        """Whether neither a tensor nor what it is computed from is known to be too large."""
        most = max(SMALL_BYTES, self.source_bytes(tensor))
        return sizes[node_name(tensor)] <= most and all(sizes[name] <= MOST_BYTES for name in self._cone([tensor]))

    def _may_be(self, node: NodeDef) -> bool:
        """Whether an operation is static if its inputs are."""
        definition = op_def_registry.get(node.op)
        if definition is None or definition.is_stateful or node.op in _NEVER or not node.input:
            return False
        if any(tensor.startswith("^") for tensor in node.input):
            return False
        odd = (DT_RESOURCE, DT_VARIANT, DT_STRING)
        return not any(arg.type in odd or arg.is_ref for arg in (*definition.output_arg, *definition.input_arg))

    def _is_read(self, node: NodeDef) -> bool:
        return node.op == "ReadVariableOp" and len(node.input) == 1 and self._handle(node) in self._keys

    def _handle(self, read: NodeDef) -> str:
        return node_name(behind_identities(read.input[0], self._nodes))

    def _cone(self, tensors: Iterable[str]) -> set[str]:
        """Return the nodes that static tensors are computed from, down to constants and reads of variables."""
        found: set[str] = set()
        stack = [node_name(tensor) for tensor in tensors]
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                if not self._is_read(self._nodes[name]):
                    stack.extend(node_name(tensor) for tensor in self._nodes[name].input)
        return found
