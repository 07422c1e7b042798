"""One flat graph: functions inlined, and what then only passes values on taken out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_RESOURCE
from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.errors_impl import OpError

from servegraph.answers.child import in_child
from servegraph.errors import ModelError
from servegraph.optimize.scopes import without_calls
from servegraph.rewriting.graph import (
    SWITCHES,
    Nodes,
    Untransformable,
    called_functions,
    in_order,
    is_handle,
    node_name,
    reachable,
    redirected,
)
from servegraph.rewriting.handles import same_handles
from servegraph.rewriting.meta_graph import ServingGraph, keep_what_serves, with_resource_variables

# Stateful for TensorFlow, and yet it does not matter when they run: they read what nothing changes.
_READS = {
    "ReadVariableOp",
    "VarIsInitializedOp",
    "VariableShape",
    "ResourceGather",
    "ResourceGatherNd",
    "LookupTableFind",
    "LookupTableFindV2",
    "LookupTableSize",
    "LookupTableSizeV2",
    "LookupTableExport",
    "LookupTableExportV2",
    "Placeholder",
    "StatefulPartitionedCall",  # of a function that is judged by its own operations
    "If",
    "While",
    "Case",
}
# Take a reference variable of TF1 and do not write to it.
_REFERENCES = {
    "RefIdentity",
    "RefSwitch",
    "RefMerge",
    "RefEnter",
    "RefExit",
    "RefNextIteration",
    "RefSelect",
    "IsVariableInitialized",
}
# Have an effect, but change nothing that another operation reads.
_HARMLESS = {"Assert", "Print", "PrintV2", "StringFormat"}
_BRANCHING = SWITCHES | {"Enter", "RefEnter"}
_LEAVING = {"Exit", "RefExit"}
_PASSING = {"Identity", "StopGradient", "PreventGradient", "Snapshot"}
# A constant beyond this is put aside while TensorFlow rewrites the graph, which copies it several times.
_LARGE_BYTES = 1 << 20


def inline(graph: ServingGraph) -> ServingGraph:
    """Return the graph with its functions inlined and cleaned.

    Raises:
        Untransformable: TensorFlow cannot inline it.
    """
    flat = keep_what_serves(_inlined(with_resource_variables(graph)))
    if not changes_state(flat):
        conditional, effects = _conditional(flat.nodes), _effects(flat.nodes)
        flat = replace(
            flat,
            nodes=_without_idle_control(flat, conditional, effects),
            initializers=_with_an_effect(flat.initializers, conditional, effects),
        )
    return keep_what_serves(replace(flat, nodes=_without_identities(flat)))


def changes_state(graph: ServingGraph) -> bool:
    """Whether a request can change what a later operation reads: a variable, a table, a queue, an accumulator."""
    return any(not _is_random(node) for node in _with_consequences(graph))


def may_vary(graph: ServingGraph) -> bool:
    """Whether a request may be answered otherwise than before: the graph draws numbers, or a request changes state."""
    return any(True for _ in _with_consequences(graph))


def _with_consequences(graph: ServingGraph) -> Iterator[NodeDef]:
    """Yield what signatures run that makes a difference to a later request."""
    nodes = [graph.nodes[name] for name in reachable(graph.nodes, graph.roots)]
    for body in (nodes, *(graph.library[name].node_def for name in called_functions(nodes, graph.library))):
        for node in body:
            if _has_effect(node) and node.op not in _HARMLESS and not is_handle(node):
                yield node


def _has_effect(node: NodeDef) -> bool:
    definition = op_def_registry.get(node.op)
    if node.op in _READS or (definition is None and node.op.startswith("__inference")):
        return False
    if definition is None or definition.is_stateful:
        return True
    return node.op not in _REFERENCES and any(arg.is_ref for arg in definition.input_arg)  # TF1's Assign and its like


def has_own_state(node: NodeDef) -> bool:
    """Whether an operation keeps to itself what its next answer depends on, as one that draws numbers does."""
    definition = op_def_registry.get(node.op)
    takes = [] if definition is None else definition.input_arg
    is_of_another = any(arg.type == DT_RESOURCE or arg.is_ref for arg in takes)
    return _has_effect(node) and node.op not in _HARMLESS and not is_handle(node) and not is_of_another


def _is_random(node: NodeDef) -> bool:
    op: str = node.op
    return op.startswith(("Random", "TruncatedNormal", "Multinomial", "ParameterizedTruncatedNormal", "CudnnRNN"))


def _inlined(graph: ServingGraph) -> ServingGraph:
    aside = {
        name: node
        for name, node in graph.nodes.items()
        if node.op == "Const" and node.attr["value"].ByteSize() > _LARGE_BYTES
    }
    item = MetaGraphDef()
    item.meta_info_def.CopyFrom(graph.original.meta_info_def)
    item.graph_def.versions.CopyFrom(graph.original.graph_def.versions)
    item.graph_def.node.extend(_stand_in(node) if name in aside else node for name, node in graph.nodes.items())
    item.graph_def.library.function.extend(graph.library.values())
    with_forms = _with_forms(graph)
    for function in item.graph_def.library.function:
        if function.signature.name in with_forms:
            function.attr["_nospecialize"].b = True
    keep = {*graph.roots, *graph.initializers, *(restore.handle for restore in graph.restores), *aside}
    keep |= {node_name(asset.tensor_info.name) for asset in graph.assets}
    item.collection_def["train_op"].node_list.value.extend(sorted(keep))
    try:
        flat = GraphDef.FromString(in_child(_optimized, item.SerializeToString(), lane="rewrite"))
    except (ModelError, RuntimeError, ValueError) as exc:
        raise Untransformable(f"TensorFlow cannot inline its functions: {exc}") from exc
    nodes = {node.name: aside.get(node.name, node) for node in flat.node}
    for name, node in nodes.items():
        if name not in graph.nodes and "GPU" in node.device.upper():
            node.device = ""  # inside a function it is a wish, in a session's own graph a condition to load it
    nodes = _with_one_handle_each(without_calls(nodes, graph.nodes.keys()))
    library = {function.signature.name: function for function in flat.library.function}
    as_they_were = called_functions([NodeDef(op=name) for name in with_forms & library.keys()], graph.library)
    library |= {name: graph.library[name] for name in as_they_were}
    return replace(graph, nodes=nodes, library=library)


def _optimized(item: bytes) -> bytes:
    """Runs in a child: TensorFlow ends the process where a placeholder has no type, or more values than memory."""
    from tensorflow.python.grappler import tf_optimizer

    try:
        flat: bytes = tf_optimizer.OptimizeGraph(_only_functions(), MetaGraphDef.FromString(item)).SerializeToString()
    except OpError as exc:  # which cannot be pickled
        raise ValueError(str(exc)) from None
    return flat


def _only_functions() -> ConfigProto:
    config = ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1
    options.meta_optimizer_iterations = RewriterConfig.ONE
    options.fail_on_optimizer_errors = True
    options.optimizers.append("function")
    options.function_optimization = RewriterConfig.AGGRESSIVE
    return config


def _with_forms(graph: ServingGraph) -> set[str]:
    """Return the functions in whose place TensorFlow puts one for a GPU, which takes and returns the same.

    Keras 2 writes the layers LSTM and GRU so: tensorflow/core/grappler/optimizers/implementation_selector.cc.
    """
    return {name for name, function in graph.library.items() if "api_implements" in function.attr}


def _with_one_handle_each(nodes: Nodes) -> Nodes:
    """Let what functions made of a variable or table, each for itself, be one node, as it is one thing."""
    conditional = _conditional(nodes)
    same = same_handles(node for name, node in nodes.items() if name not in conditional)
    if not same:
        return nodes
    first = set(same.values())  # which need no order
    return {
        name: _with_inputs(node, [] if name in first else [redirected(tensor, same) for tensor in node.input])
        for name, node in nodes.items()
    }


def _stand_in(node: NodeDef) -> NodeDef:
    """Return a placeholder for a large constant."""
    made = NodeDef(name=node.name, op="Placeholder", device=node.device, input=node.input)
    made.attr["dtype"].CopyFrom(node.attr["dtype"])
    made.attr["shape"].shape.CopyFrom(node.attr["value"].tensor.tensor_shape)
    return made


def _effects(nodes: Nodes) -> dict[str, frozenset[str]]:
    """Return for each node the nearest operations with an effect that run before it, or itself where it has one.

    Of a loop that has one it is where the loop is left: a control edge must not lead out of it otherwise.
    """
    effects: dict[str, frozenset[str]] = {}
    for name in in_order(nodes):
        node = nodes[name]
        if _has_effect(node) and not is_handle(node):
            effects[name] = frozenset([name])
        else:
            before = frozenset().union(*(effects.get(node_name(t), frozenset()) for t in node.input))
            effects[name] = frozenset([name]) if before and node.op in _LEAVING else before
    return effects


def _with_an_effect(
    initializers: Iterable[str], conditional: Set[str], effects: Mapping[str, frozenset[str]]
) -> tuple[str, ...]:
    """Return the operations that initializers run, in the place of what functions passed on after them."""
    found: set[str] = set()
    for name in initializers:
        found |= {name} if (effects[name] | {name}) & conditional else effects[name]
    return tuple(sorted(found))


def _without_idle_control(graph: ServingGraph, conditional: Set[str], effects: Mapping[str, frozenset[str]]) -> Nodes:
    """Keep control edges only to operations with an effect, and those that say in which branch or loop a node runs.

    Inlining ties everything a function did to its outputs. Without this each variable that was read anywhere stays.
    """
    nodes: Nodes = {}
    for name, node in graph.nodes.items():
        control = [t for t in node.input if t.startswith("^")]
        nodes[name] = node
        if control and name not in graph.initializers:
            as_they_are = {node_name(t) for t in control} & conditional
            others = (effects[node_name(t)] for t in control if node_name(t) not in conditional)
            wanted = frozenset().union(as_they_are, *others) - {name}
            data = [t for t in node.input if not t.startswith("^")]
            nodes[name] = _with_inputs(node, data + [f"^{effect}" for effect in sorted(wanted)])
    return nodes


def _conditional(nodes: Nodes) -> set[str]:
    """Return what runs only in one branch of a condition, or in a loop, and what follows a condition."""
    users: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for tensor in node.input:
            users.setdefault(node_name(tensor), []).append(name)
    found: set[str] = set()
    stack = [name for name, node in nodes.items() if node.op in _BRANCHING]
    while stack:
        name = stack.pop()
        if name not in found and nodes[name].op not in _LEAVING:
            found.add(name)
            stack.extend(users.get(name, ()))
    return found


def _without_identities(graph: ServingGraph) -> Nodes:
    """Let the consumers of an Identity read what it reads.

    One stays where a signature names it, where a control edge begins or ends at it, and behind a Switch, whose dead
    output it makes usable.
    """
    controlling = {t[1:] for node in graph.nodes.values() for t in node.input if t.startswith("^")}
    kept = {*graph.roots, *controlling, *graph.initializers}
    kept |= {node_name(asset.tensor_info.name) for asset in graph.assets}
    passing = {
        name: node.input[0]
        for name, node in graph.nodes.items()
        if node.op in _PASSING
        and name not in kept
        and len(node.input) == 1
        and graph.nodes[node_name(node.input[0])].op not in SWITCHES | {"VariableV2", "Variable"}
    }

    def source(tensor: str) -> str:
        while not tensor.startswith("^") and (before := passing.get(node_name(tensor))) is not None:
            tensor = before
        return tensor

    nodes: Nodes = {}
    for name, node in graph.nodes.items():
        if name not in passing:
            inputs = [source(tensor) for tensor in node.input]
            nodes[name] = node if inputs == list(node.input) else _with_inputs(node, inputs)
    return nodes


def _with_inputs(node: NodeDef, inputs: list[str]) -> NodeDef:
    copy = NodeDef()
    copy.CopyFrom(node)
    copy.input[:] = inputs
    return copy
