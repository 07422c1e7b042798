"""A MetaGraph taken apart into what serving needs, and put together again.

The result has no object graph: every loader then takes the restore op and the signatures as they are written, which
allows tensors to be stored in another form. Python attributes of `tf.saved_model.load(…)` are lost; signatures stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, MetaGraphDef, SignatureDef
from tensorflow.python.framework import op_def_registry

from servegraph.rewriting.graph import (
    Nodes,
    Untransformable,
    called_functions,
    free_prefix,
    is_handle,
    node_name,
    reachable,
    redirected,
    takes_reference,
    tensors_of,
)
from servegraph.rewriting.handles import name_resources, same_handles
from servegraph.rewriting.object_graph import missing_restores
from servegraph.rewriting.read_restores import read_restores
from servegraph.rewriting.restores import Restore, StoredAs, shared_name_of
from servegraph.rewriting.soundness import require_sound
from servegraph.rewriting.write_restores import write_restores
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.graph import INIT_SIGNATURE
from servegraph.savedmodel.meta_graph import ASSETS_COLLECTION

_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
# What tf.saved_model.load runs where a model has no init op, and a session does not.
_TABLES_COLLECTION = "table_initializer"


@dataclass(frozen=True)
class ServingGraph:
    """The parts of one MetaGraph. `initializers` are the operations run once after restoring.

    With `is_short` what is written for them has short names as well.
    """

    original: MetaGraphDef
    nodes: Nodes
    library: Mapping[str, FunctionDef]
    signatures: Mapping[str, SignatureDef]
    restores: tuple[Restore, ...]
    initializers: tuple[str, ...]
    assets: tuple[AssetFileDef, ...]
    is_short: bool = False

    @property
    def root_tensors(self) -> list[str]:
        """The tensors that signatures name as inputs or outputs."""
        infos = [i for s in self.signatures.values() for i in (*s.inputs.values(), *s.outputs.values())]
        return [tensor for info in infos for tensor in tensors_of(info)]

    @property
    def roots(self) -> list[str]:
        """The nodes that signatures name as inputs or outputs."""
        return [node_name(tensor) for tensor in self.root_tensors]

    @property
    def fed(self) -> set[str]:
        """The nodes in whose place signatures put what a request holds; they need not be placeholders."""
        return {node_name(t) for s in self.signatures.values() for info in s.inputs.values() for t in tensors_of(info)}

    @property
    def certain_nodes(self) -> Nodes:
        """The nodes, with placeholders for those in whose place a request may put something else, even a constant."""
        return {**self.nodes, **{name: NodeDef(name=name, op="Placeholder") for name in self.fed}}

    @property
    def checkpoint_keys(self) -> set[str]:
        """The tensors of the checkpoint that are restored."""
        return {tensor.key for restore in self.restores for tensor in restore.tensors}


def take_apart(meta_graph: MetaGraphDef, tensors: BundleReader | None) -> ServingGraph:
    """Return the parts of `meta_graph`, which is not changed; `tensors` is its checkpoint.

    Raises:
        Untransformable: it has no signature, does not hold together, or does something that is not understood.
    """
    graph = MetaGraphDef()
    graph.CopyFrom(meta_graph)
    require_sound(graph)
    nodes: Nodes = {node.name: node for node in graph.graph_def.node}
    if same := same_handles(node for node in nodes.values() if not node.input):
        for node in graph.graph_def.node:
            node.input[:] = [redirected(tensor, same) for tensor in node.input]
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    if any(node.op in ("VarHandleOp", "VariableV2") for f in library.values() for node in f.node_def):
        raise Untransformable("a function makes a variable of its own")
    signatures = {name: its for name, its in graph.signature_def.items() if not name.startswith("__saved_model_")}
    if not any(signature.outputs for signature in signatures.values()):
        raise Untransformable("it has no signature with an output")
    restores = read_restores(graph)
    found = ServingGraph(
        original=graph,
        nodes=nodes,
        library=library,
        signatures=signatures,
        restores=restores + missing_restores(graph, nodes, restores, tensors),
        initializers=_initializers(graph, nodes),
        assets=assets_of(graph),
    )
    return _with_what_is_stored(found, tensors)


def _with_what_is_stored(graph: ServingGraph, tensors: BundleReader | None) -> ServingGraph:
    """Return the graph without restores from what is not stored; of a frozen one they may be left over.

    Raises:
        Untransformable: serving needs one, as of a model with a checkpoint of version 1.
    """
    stored = tensors.entries if tensors else {}
    absent = {r.handle: t.key for r in graph.restores for t in r.tensors if t.key not in stored}
    if not absent:
        return graph
    needed = absent.keys() & reachable(graph.nodes, (*graph.roots, *graph.initializers))
    if needed:
        raise Untransformable(f"{absent[min(needed)]!r} is restored, and in no checkpoint that is read here")
    return replace(graph, restores=tuple(restore for restore in graph.restores if restore.handle not in absent))


def keep_what_serves(graph: ServingGraph) -> ServingGraph:
    """Return the graph without what no signature reaches: nodes, functions, restores, initializers, assets."""
    needed = reachable(graph.nodes, graph.roots)
    initializers: set[str] = set()
    while True:
        wanted = {
            name
            for name in set(graph.initializers) - initializers
            if not (touched := _resources(name, graph)) or touched & needed
        }
        if not wanted:
            break
        initializers |= wanted
        needed |= reachable(graph.nodes, wanted)
    nodes = {name: node for name, node in graph.nodes.items() if name in needed}
    used = called_functions(nodes.values(), graph.library)
    return replace(
        graph,
        nodes=nodes,
        library={name: function for name, function in graph.library.items() if name in used},
        restores=tuple(restore for restore in graph.restores if restore.handle in needed),
        initializers=tuple(name for name in graph.initializers if name in initializers),
        assets=tuple(asset for asset in graph.assets if node_name(asset.tensor_info.name) in needed),
    )


def put_together(graph: ServingGraph, stored: Mapping[str, StoredAs], result: MetaGraphDef) -> None:
    """Fill the empty `result` with these parts; equal parts give equal bytes, so that a model's digest stays.

    `stored` says in which form each key is stored. Each node is copied once: a constant may have a gigabyte.
    """
    graph = with_resource_variables(graph)
    nodes: Nodes = {}
    for name, node in graph.nodes.items():
        copy = result.graph_def.node.add()
        copy.CopyFrom(node)
        # Colocation is a hint, and may name a node that is gone; debug info names source files.
        copy.attr.pop("_class", None)
        copy.ClearField("experimental_debug_info")
        nodes[name] = copy
    restores = graph.restores
    functions = [_plain_function(function) for _, function in sorted(graph.library.items())]
    name_resources(nodes, functions, is_short=graph.is_short)
    prefix = free_prefix(nodes, "s" if graph.is_short else "servegraph")
    result.meta_info_def.tags.extend(graph.original.meta_info_def.tags)
    result.meta_info_def.meta_graph_version = graph.original.meta_info_def.meta_graph_version
    result.meta_info_def.tensorflow_version = graph.original.meta_info_def.tensorflow_version
    result.meta_info_def.tensorflow_git_version = graph.original.meta_info_def.tensorflow_git_version
    if restores:
        saver, variables = write_restores(restores, nodes, prefix, stored)
        result.saver_def.CopyFrom(saver)
        result.collection_def["variables"].bytes_list.value.extend(v.SerializeToString() for v in variables)
    if graph.initializers:
        init = nodes[f"{prefix}/init"] = type(next(iter(nodes.values())))(name=f"{prefix}/init", op="NoOp")
        init.input.extend(f"^{name}" for name in graph.initializers)
        # The collection only: as a signature it would show among the model's own.
        result.collection_def["saved_model_main_op"].node_list.value.append(init.name)
    result.graph_def.versions.CopyFrom(graph.original.graph_def.versions)
    result.graph_def.node.extend(node for name, node in nodes.items() if name not in graph.nodes)
    result.graph_def.library.function.extend(functions)
    for name, signature in graph.signatures.items():
        result.signature_def[name].CopyFrom(signature)
    result.asset_file_def.extend(graph.assets)
    _leave_out_defaults(result, graph.original)


def _initializers(graph: MetaGraphDef, nodes: Nodes) -> tuple[str, ...]:
    """Return the operations behind the init op, groups (NoOp) dissolved, in a fixed order."""
    names = _named_in(graph, *_INIT_COLLECTIONS)
    if INIT_SIGNATURE in graph.signature_def:
        names += [info.name for info in graph.signature_def[INIT_SIGNATURE].outputs.values()]
    names = names or _named_in(graph, _TABLES_COLLECTION)
    found: dict[str, None] = {}
    seen: set[str] = set()
    stack = [node_name(name) for name in names]
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in nodes:
            raise Untransformable(f"its init op needs {name!r}, which is not there")
        if nodes[name].op == "NoOp":
            stack.extend(node_name(tensor) for tensor in nodes[name].input)
        else:
            found[name] = None
    return tuple(sorted(found))


def _named_in(graph: MetaGraphDef, *collections: str) -> list[str]:
    return [
        name for key in collections if key in graph.collection_def for name in graph.collection_def[key].node_list.value
    ]


def _resources(name: str, graph: ServingGraph) -> set[str]:
    """Return the resources that an operation is given, itself or in what it is computed from."""
    return {need for need in reachable(graph.nodes, [name]) if is_handle(graph.nodes[need])}


def assets_of(graph: MetaGraphDef) -> tuple[AssetFileDef, ...]:
    """Return the assets: TF2 lists them in the MetaGraph, TF1 in a collection."""
    if graph.asset_file_def or ASSETS_COLLECTION not in graph.collection_def:
        return tuple(graph.asset_file_def)
    assets = []
    for packed in graph.collection_def[ASSETS_COLLECTION].any_list.value:
        asset = AssetFileDef()
        packed.Unpack(asset)
        assets.append(asset)
    return tuple(assets)


def with_resource_variables(graph: ServingGraph) -> ServingGraph:
    """Turn TF1 reference variables that are only read into resource variables, which every loader handles alike."""
    references = {
        restore.handle
        for restore in graph.restores
        if graph.nodes[restore.handle].op in ("VariableV2", "Variable") and restore.put.op == "Assign"
    }
    for node in graph.nodes.values():
        for position, tensor in enumerate(node.input):
            name = node_name(tensor)
            if name in references and not tensor.startswith("^") and takes_reference(node, position):
                references.discard(name)
    if not references:
        return graph
    nodes = dict(graph.nodes)
    restores = []
    for restore in graph.restores:
        restores.append(_as_resource(restore, nodes) if restore.handle in references else restore)
    return replace(graph, nodes=nodes, restores=tuple(restores))


def _as_resource(restore: Restore, nodes: Nodes) -> Restore:
    """Put a resource variable and a read of it, under the old name, in the place of a reference variable."""
    variable = nodes[restore.handle]
    dtype = variable.attr["dtype"]
    handle = nodes[f"{variable.name}/handle"] = NodeDef(name=f"{variable.name}/handle", op="VarHandleOp")
    handle.attr["dtype"].CopyFrom(dtype)
    handle.attr["shape"].CopyFrom(variable.attr["shape"])
    handle.attr["shared_name"].s = shared_name_of(variable.name)
    handle.device = variable.device
    read = nodes[variable.name] = NodeDef(name=variable.name, op="ReadVariableOp", device=variable.device)
    read.input.append(handle.name)
    read.attr["dtype"].CopyFrom(dtype)
    put = NodeDef(op="AssignVariableOp")
    put.attr["dtype"].CopyFrom(dtype)
    return Restore(handle.name, restore.tensors, put)


def _plain_function(function: FunctionDef) -> FunctionDef:
    copy = FunctionDef()
    copy.CopyFrom(function)
    for name in ("forward_function_name", "backward_function_name"):  # for training; they name functions now gone
        copy.attr.pop(name, None)
    for node in copy.node_def:
        node.ClearField("experimental_debug_info")
    return copy


def _leave_out_defaults(result: MetaGraphDef, original: MetaGraphDef) -> None:
    """Drop attributes that have the default of their operation; loaders put them in again.

    Also those that are newer than this TensorFlow and have the default of the one that wrote the model. Then no loader
    needs the list of its operations, by which an older runtime drops newer attributes.
    """
    written_by = {op.name: op for op in original.meta_info_def.stripped_op_list.op}
    defaults: dict[str, list[dict[str, AttrValue]]] = {}
    for body in (result.graph_def.node, *(function.node_def for function in result.graph_def.library.function)):
        for node in body:
            if node.op not in defaults:
                known = (op_def_registry.get(node.op), written_by.get(node.op))
                defaults[node.op] = [_defaults(op) for op in known if op is not None]
            for name, value in list(node.attr.items()):
                if any(name in found and found[name] == value for found in defaults[node.op]):
                    del node.attr[name]
    result.meta_info_def.stripped_default_attrs = True


def _defaults(op: OpDef) -> dict[str, AttrValue]:
    return {attribute.name: attribute.default_value for attribute in op.attr if attribute.HasField("default_value")}
