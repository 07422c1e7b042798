"""The nodes that stand for variables and tables: which are the same one, which are written, how they are named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain, count

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.rewriting.graph import Nodes, attr, behind_identities, is_handle, node_name, reachable

_NAMED = {
    "VarHandleOp",
    "HashTableV2",
    "HashTable",
    "MutableHashTableV2",
    "MutableHashTable",
    "MutableDenseHashTableV2",
}
_ANONYMOUS = b"cd2c9b7b-88a0-44c8-a587-95b5d7dc6e55"  # of a variable that is one of its own (resource_handle.cc)
_READS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarIsInitializedOp", "VariableShape", "Identity"}


def same_handles(nodes: Iterable[NodeDef]) -> dict[str, str]:
    """Return {node: an earlier node of the same variable or table}, as an imported or inlined graph may have them."""
    first: dict[tuple[object, ...], str] = {}
    same = {}
    for node in nodes:
        shared = attr(node, "shared_name").s
        if node.op in _NAMED and shared not in (b"", _ANONYMOUS):
            earlier = first.setdefault((node.op, attr(node, "container").s, shared, node.device), node.name)
            if earlier != node.name:
                same[node.name] = earlier
    return same


def written_by(operations: Iterable[str], nodes: Nodes) -> set[str]:
    """Return the nodes of the variables and tables that these operations may write: give to anything but a read."""
    return {
        handle
        for name in reachable(nodes, operations)
        if nodes[name].op not in _READS
        for tensor in nodes[name].input
        if not tensor.startswith("^") and is_handle(nodes[handle := node_name(behind_identities(tensor, nodes))])
    }


def name_resources(nodes: Nodes, functions: Sequence[FunctionDef], *, is_short: bool) -> None:
    """Give variables and tables shared names that depend on the graph alone.

    Two models in one process share the resources of one name, so each name carries a hash of the whole graph.
    TensorFlow's own names of tables hold a random number, which would make every export another model.
    """
    bodies = [list(nodes.values()), *(list(function.node_def) for function in functions)]
    named = [node for body in bodies for node in body if node.op in _NAMED and attr(node, "shared_name").s]
    given: dict[bytes, str] = {}
    taken: set[str] = set()
    for node in named:
        shared = node.attr["shared_name"].s
        if shared not in given:
            # Functions may have nodes of one name.
            wanted = chain([node.name], (f"{node.name}_{number}" for number in count(1)))
            given[shared] = next(name for name in wanted if name not in taken)
            taken.add(given[shared])
        node.attr["shared_name"].s = given[shared].encode()
    digest = hashlib.sha256()
    for message in (*nodes.values(), *functions):
        digest.update(message.SerializeToString(deterministic=True))
    short = {
        name: f"{number:x}".encode() for number, name in enumerate(sorted({n.attr["shared_name"].s for n in named}))
    }
    for node in named:
        name = node.attr["shared_name"].s
        node.attr["shared_name"].s = f"{digest.hexdigest()[:12]}/".encode() + (short[name] if is_short else name)
