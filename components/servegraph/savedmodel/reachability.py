"""What each entry point of a MetaGraph can run and read, and what is there only for training.

Within the main graph an entry point reaches the nodes its outputs depend on, stopping where a request feeds a
value, as TensorFlow's session prunes. A function is reached whole: its stateful operations run even where no
output needs them. So what is called unreachable here never runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from math import prod
from typing import NamedTuple

from servegraph.errors import ModelError
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.dtypes import BY_NAME
from servegraph.savedmodel.graph import (
    INIT_SIGNATURE,
    TRAIN_SIGNATURE,
    Body,
    MetaGraph,
    Node,
    Shape,
    Signature,
    attr_bool,
    attr_bytes,
    attr_type,
    parse_shape,
)
from servegraph.savedmodel.graph_reader import GraphFile
from servegraph.savedmodel.graph_walk import GraphWalk, Reach
from servegraph.savedmodel.ops import BATCH_NORM, SHARED_OPS, VARIABLE_OPS, training_kind
from servegraph.savedmodel.restores import copies, node_of, read_restores
from servegraph.savedmodel.wire import fields
from servegraph.storage.directory import Directory

# Entry points that are not signatures.
INIT, RESTORE, TRAIN = "(init)", "(restore)", "(train)"
PYTHON, PYTHON_LOAD = "(python)", "(python load)"  # what `tf.saved_model.load` offers, and what it runs by itself

# Collections that name an operation to run: on loading, and for training.
INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op", "saved_model_init_op")
TRAIN_COLLECTIONS = ("saved_model_train_op", "train_op")

# What tells which nodes are one resource, and of which shape and type it is.
_OF_RESOURCES = {
    op.encode(): frozenset({b"container", b"shared_name", b"shape", b"dtype"}) for op in SHARED_OPS | VARIABLE_OPS
}

# What `tf.saved_model.load` rebuilds the Python objects from; no signature reads it.
OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

# How optimizers name what they keep per variable: TF1, TF2 object-based checkpoints, Keras 2 and 3.
_SLOT = (
    r"/(Adam|Adam_1|Momentum|Adagrad|Adadelta|Adadelta_1|RMSProp|RMSProp_1|Ftrl|Ftrl_1|ExponentialMovingAverage)$"
    # Keras 3 lists the weights that it trains in the optimizer as well: those are no state of it.
    r"|/\.OPTIMIZER_SLOT/|(^|/)_?optimizer/(?!_trainable_variables/)|(^|/)(beta1_power|beta2_power|global_step)$"
)


def is_slot(key: str) -> bool:
    """Tell whether a checkpoint key is one that an optimizer gives to its state."""
    return re.search(_SLOT, key) is not None  # compiled when needed, not when imported


def is_signature(entry_point: str) -> bool:
    """Tell whether an entry point is a signature that clients call."""
    return entry_point not in (INIT, RESTORE, TRAIN, PYTHON, PYTHON_LOAD)


class Reachability(NamedTuple):
    """`entries` by entry point: the signatures' names, then those in parentheses above.

    `restored` maps each checkpoint key to the nodes of the main graph that loading fills from it: a variable,
    the parts of a partitioned one, or a table. Several nodes can stand for one resource; `restored` has all.
    `requested` maps each key that loading asks the checkpoint for to the type it wants. `copies` maps a variable
    that is filled to those that it is a copy of and that nothing fills, see `restores.copies`. `computed` are the keys
    that a node is not filled with as they are stored, but computed from.
    """

    entries: Mapping[str, Reach]
    restored: Mapping[str, tuple[str, ...]]
    requested: Mapping[str, str]
    main_nodes: Mapping[str, Node]
    copies: Mapping[str, tuple[str, ...]]
    computed: Set[str] = frozenset()

    def reaching(self, body: Body, node: str) -> tuple[str, ...]:
        """Return the entry points that reach a node of `body`."""
        if body.name:
            return tuple(name for name, reach in self.entries.items() if body.name in reach.functions)
        return tuple(name for name, reach in self.entries.items() if node in reach.nodes)

    def needed_ops(self, meta_graph: MetaGraph) -> set[str]:
        """Return the operations that serving needs: the main graph's, and those of the functions it runs."""
        needed = set(meta_graph.main.ops)
        for name, reach in self.entries.items():
            if is_signature(name) or name in (INIT, RESTORE):
                for function in reach.functions:
                    needed.update(meta_graph.functions[function].ops)
        return needed - meta_graph.functions.keys()

    def expected_shape(self, key: str) -> Shape:
        """Return the shape of the variable that a stored tensor fills, None where the graph does not say."""
        if key in self.computed:
            return None
        for target in self.restored.get(key, ()):
            node = self.main_nodes.get(target)
            if node is not None and "shape" in node.attrs:
                return _shape_of(node.attrs["shape"])
        return None

    def growth_bytes(self, stored: Mapping[str, TensorEntry]) -> int:
        """Return what variables take in memory beyond the tensors that fill them, as from weights stored as int8."""
        variables: dict[tuple[bytes, bytes], int] = {}
        filling: dict[object, int] = {}  # by where it lies: tensors under several keys are there once
        for key, targets in self.restored.items():
            for node in (self.main_nodes[name] for name in targets if name in self.main_nodes):
                size_bytes = _variable_bytes(node) if key in stored else None
                if size_bytes is not None:
                    shared_name = attr_bytes(node, "shared_name") or node.name.encode()
                    variables[attr_bytes(node, "container") or b"", shared_name] = size_bytes
                    entry = stored[key]
                    filling[key if entry.slices else (entry.shard, entry.offset)] = entry.size_bytes
        return max(0, sum(variables.values()) - sum(filling.values()))

    def reading(self, key: str) -> tuple[str, ...] | None:
        """Return the entry points that read a stored tensor, or None where the graph does not say.

        A tensor that loading puts into a copy of a variable is that variable's: what reads it needs the tensor.
        """
        targets = self.restored.get(key)
        if targets is None:
            return None
        if self.copies:
            targets = (*targets, *(name for target in targets for name in self.copies.get(target, ())))
        readers = []
        for name, reach in self.entries.items():
            if name != RESTORE and not reach.nodes.isdisjoint(targets):
                readers.append(name)
        return tuple(readers)


@lru_cache(maxsize=4096)
def _shape_of(payload: bytes) -> Shape:
    """Read the shape in an AttrValue; thousands of variables have a handful."""
    for field in fields(payload):
        if field.number == 7:
            return parse_shape(payload, field.start, field.end)
    return None


def _variable_bytes(node: Node) -> int | None:
    """Return the size of a variable's value, None for other nodes and where shape or size of an element are open."""
    if node.op not in VARIABLE_OPS or "shape" not in node.attrs:
        return None
    shape, dtype = _shape_of(node.attrs["shape"]), BY_NAME.get(attr_type(node, "dtype") or "")
    if shape is None or None in shape or dtype is None or dtype.size_bytes is None:
        return None
    return dtype.size_bytes * prod(size for size in shape if size is not None)


class Baggage(NamedTuple):
    """Something a serving model should not hold.

    `kind` is one of `ops.TrainingKind`, `slot` (what an optimizer keeps) or `unread_tensor` (stored, and no
    signature reads it); `reachable_from` the entry points that reach it: a signature's name, `(init)`,
    `(train)`, `(python)`, `(python load)`. `stored_bytes` is 0 for operations.
    """

    kind: str
    name: str
    reachable_from: tuple[str, ...]
    stored_bytes: int


def training_baggage(directory: Directory) -> list[Baggage]:
    """Return what is training-only and stored or reachable in any MetaGraph; empty is the proof of none.

    Raises:
        ModelError: the SavedModel cannot be read.
    """
    entries = _stored_tensors(directory)
    found: list[Baggage] = []
    read_somewhere: dict[str, set[str]] = {key: set() for key in entries}
    with GraphFile(directory) as file:
        for meta_graph in file.scan().meta_graphs:
            reachability = trace(file, meta_graph)
            with file.explained():
                found += training_ops(file, meta_graph, reachability)
            # Where the graph does not say who reads a tensor, the proof fails: it counts as unread.
            for key in reachability.restored.keys() & entries.keys():
                read_somewhere[key].update(reachability.reading(key) or ())
    found += unread_tensors(entries.values(), read_somewhere)
    return list(dict.fromkeys(found))


def _stored_tensors(directory: Directory) -> Mapping[str, TensorEntry]:
    try:
        with BundleReader(directory) as bundle:
            return bundle.entries
    except ModelError as error:
        if error.code != "NO_VARIABLES":
            raise
        return {}


def unread_tensors(entries: Iterable[TensorEntry], readers: Mapping[str, Iterable[str]]) -> list[Baggage]:
    """Return the stored tensors that no signature reads; `readers` are the entry points per key."""
    found = []
    for entry in entries:
        reading = readers.get(entry.key, ())
        if entry.key != OBJECT_GRAPH_KEY and not any(map(is_signature, reading)):
            kind = "slot" if is_slot(entry.key) else "unread_tensor"
            found.append(Baggage(kind, entry.key, tuple(sorted(reading)), entry.size_bytes))
    return found


def training_ops(file: GraphFile, meta_graph: MetaGraph, reachability: Reachability) -> list[Baggage]:
    """Return the training-only operations: nodes of the main graph, and operations of each function."""
    found = []
    for node in reachability.main_nodes.values():
        if kind := training_kind(node.op):
            reached = reachability.reaching(meta_graph.main, node.name)
            found.append(Baggage(kind, f"{node.name} ({node.op})", reached, 0))
    for body in meta_graph.functions.values():
        for op in body.ops:
            if kind := training_kind(op):
                found.append(Baggage(kind, f"{op} in {body.name}", reachability.reaching(body, ""), 0))
    for body in (meta_graph.main, *meta_graph.functions.values()):
        for node in _normalized_by_batch(file, body):
            name = f"{node.name} ({node.op})" if not body.name else f"{node.name} in {body.name}"
            found.append(Baggage("training_mode", name, reachability.reaching(body, node.name), 0))
    return found


def _normalized_by_batch(file: GraphFile, body: Body) -> list[Node]:
    """Return the batch normalizations that go by the batch at hand.

    Keras 2 writes LayerNormalization as one of those too, over a single image whose channels are the rows of a request:
    there are as many factors as rows, so they are filled in, as many as a computation says. A real channel's is
    learned, or constant, or filled in as many times as a constant says.
    """
    found = [node for node in body.watched if node.op in BATCH_NORM and attr_bool(node, "is_training", default=True)]
    nodes = file.nodes(body) if found else {}

    def computed(node: Node | None, number: int) -> Node | None:
        return nodes.get(node_of(node.inputs[number])) if node and len(node.inputs) > number else None

    def is_one_each_row(node: Node) -> bool:
        factor = computed(node, 1)
        count = computed(factor, 0)
        return factor is not None and factor.op == "Fill" and count is not None and count.op != "Const"

    return [node for node in found if not is_one_each_row(node)]


def is_plain(meta_graph: MetaGraph) -> bool:
    """Tell whether a MetaGraph has nothing to trace: no variable, function, watched or training operation."""
    main = meta_graph.main
    return not (
        meta_graph.functions
        or main.watched
        or VARIABLE_OPS & main.ops.keys()
        or any(training_kind(op) for op in main.ops)
    )


def trace(file: GraphFile, meta_graph: MetaGraph) -> Reachability:
    """Follow the edges of a MetaGraph from its entry points. Raises ModelError `GRAPH_CORRUPT`.

    Of a plain MetaGraph, such as a frozen one, the result has no edges: there is nothing to attribute.
    """
    if is_plain(meta_graph):
        return Reachability({}, {}, {}, {}, {})
    with file.explained():
        return _trace(file, meta_graph)


def _trace(file: GraphFile, meta_graph: MetaGraph) -> Reachability:
    nodes = file.nodes(meta_graph.main, _OF_RESOURCES)
    walker = GraphWalk(meta_graph, nodes)
    entries = {}
    for name, signature in meta_graph.signatures.items():
        if name not in (INIT_SIGNATURE, TRAIN_SIGNATURE):
            fed = frozenset(tensor for info in signature.inputs.values() for tensor in info.tensors)
            entries[name] = walker.reach(_outputs(signature), fed)
    entries[INIT] = walker.reach(_operations(meta_graph, INIT_SIGNATURE, INIT_COLLECTIONS), frozenset())
    entries[TRAIN] = walker.reach(_operations(meta_graph, TRAIN_SIGNATURE, TRAIN_COLLECTIONS), frozenset())
    saver = meta_graph.saver
    entries[RESTORE] = walker.reach([saver.restore_op] if saver else [], frozenset())
    entries[PYTHON] = Reach(frozenset(), walker.close_functions(meta_graph.exposed_functions))
    entries[PYTHON_LOAD] = Reach(frozenset(), walker.close_functions(meta_graph.loading_functions))
    same = _same_resources(nodes)
    restores = read_restores(file, meta_graph, nodes, {name: walker.calls(name) for name in entries[RESTORE].nodes})
    restored = {
        key: tuple(name for target in targets for name in same.get(target, (target,)))
        for key, targets in restores.targets.items()
    }
    return Reachability(entries, restored, restores.requested, nodes, copies(nodes, restored), restores.computed)


def _same_resources(nodes: Mapping[str, Node]) -> dict[str, tuple[str, ...]]:
    """Return, for each node that stands for a resource together with others, all of them."""
    by_resource: dict[tuple[bytes | None, ...], list[str]] = {}
    for node in nodes.values():
        if node.op in SHARED_OPS and (shared_name := attr_bytes(node, "shared_name")):
            container = attr_bytes(node, "container") or b""
            by_resource.setdefault((container, shared_name), []).append(node.name)
    groups = [tuple(names) for names in by_resource.values() if len(names) > 1]
    return {name: group for group in groups for name in group}


def _outputs(signature: Signature) -> list[str]:
    return [tensor for info in signature.outputs.values() for tensor in info.tensors]


def _operations(meta_graph: MetaGraph, signature: str, collections: tuple[str, ...]) -> list[str]:
    names = [name for key in collections for name in meta_graph.node_lists.get(key, ())]
    if signature in meta_graph.signatures:
        names += _outputs(meta_graph.signatures[signature])
    return names
