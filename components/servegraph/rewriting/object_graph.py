"""Where the object graph says a variable's value is, for variables that the MetaGraph's own restore op leaves out.

tf.saved_model.save of a Keras 3 model writes a restore op for copies of the variables, not for those that its
signatures read. tf.saved_model.load follows the object graph and never notices; a session loader, and so TF Serving,
finds the variables uninitialised. Following the object graph here gives both the same model.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from servegraph.rewriting.graph import CALLS, Nodes, node_name
from servegraph.rewriting.restores import Restore, StoredTensor
from servegraph.savedmodel.bundle_reader import BundleReader

CHECKPOINT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"


def missing_restores(
    meta_graph: MetaGraphDef, nodes: Nodes, restores: tuple[Restore, ...], tensors: BundleReader | None
) -> tuple[Restore, ...]:
    """Return restores for the variables that calls in the main graph are given and `restores` leave out."""
    if tensors is None or not meta_graph.HasField("object_graph_def"):
        return ()
    known = {restore.handle for restore in restores}
    wanted = {
        handle: object_id for handle, object_id in _captured_variables(meta_graph, nodes).items() if handle not in known
    }
    if not wanted:
        return ()
    keys = _checkpoint_keys(meta_graph, tensors)
    return tuple(
        Restore(
            handle,
            (StoredTensor(keys[object_id], "", nodes[handle].attr["dtype"].type),),
            _assignment(nodes[handle]),
        )
        for handle, object_id in sorted(wanted.items())
        if keys.get(object_id) in tensors.entries
    )


def _captured_variables(meta_graph: MetaGraphDef, nodes: Nodes) -> dict[str, int]:
    """Return {variable node: object id}: a call's last inputs are the function's captures, as in bound_inputs."""
    functions = meta_graph.object_graph_def.concrete_functions
    captured = {}
    for node in nodes.values():
        name = node.attr["f"].func.name if node.op in CALLS else ""
        if name not in functions or not (bound := list(functions[name].bound_inputs)):
            continue
        inputs = [node_name(tensor) for tensor in node.input if not tensor.startswith("^")]
        for handle, object_id in zip(inputs[-len(bound) :], bound, strict=True):
            if nodes[handle].op == "VarHandleOp":
                captured[handle] = object_id
    return captured


def _checkpoint_keys(meta_graph: MetaGraphDef, tensors: BundleReader) -> Mapping[int, str]:
    """Return {object id: checkpoint key of its value}, following both object graphs from the root by child names."""
    stored = TrackableObjectGraph()
    if CHECKPOINT_GRAPH not in tensors.entries:
        return {}
    try:
        stored.ParseFromString(tensors.read_strings(tensors.entries[CHECKPOINT_GRAPH])[0])
    except (DecodeError, IndexError):
        return {}
    objects = meta_graph.object_graph_def.nodes
    keys: dict[int, str] = {}
    seen: set[int] = set()
    stack = [(0, 0)]
    while stack:
        object_id, stored_id = stack.pop()
        if object_id in seen or object_id >= len(objects) or stored_id >= len(stored.nodes):
            continue
        seen.add(object_id)
        for attribute in stored.nodes[stored_id].attributes:
            if attribute.name == _VALUE:
                keys[object_id] = attribute.checkpoint_key
        children = {child.local_name: child.node_id for child in stored.nodes[stored_id].children}
        stack.extend(
            (child.node_id, children[child.local_name])
            for child in objects[object_id].children
            if child.local_name in children
        )
    return keys


def _assignment(handle: NodeDef) -> NodeDef:
    put = NodeDef(op="AssignVariableOp")
    put.attr["dtype"].CopyFrom(handle.attr["dtype"])
    put.attr["validate_shape"].CopyFrom(tf.compat.v1.AttrValue(b=False))
    return put
