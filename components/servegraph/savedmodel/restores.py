"""What loading a model asks its checkpoint for, and which variables it fills with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from servegraph.savedmodel.graph import MetaGraph, Node, attr_strings, attr_types
from servegraph.savedmodel.graph_reader import GraphFile
from servegraph.savedmodel.meta_graph import MAX_MESSAGE_BYTES

_RESTORING = {b"Const": frozenset({b"value"}), b"RestoreV2": frozenset({b"dtypes"})}
_ORIGINS = frozenset({"RestoreV2", "VarHandleOp"})  # with one data input at most, and yet the end of the way
_ASSIGNING = frozenset({"Assign", "AssignVariableOp", "LookupTableImport", "LookupTableImportV2"})
MAX_HANDED_ON = 100  # operations that a value is followed through; a handful is what models have


def read_restores(
    file: GraphFile, meta_graph: MetaGraph, nodes: Mapping[str, Node], restoring: Mapping[str, set[str]]
) -> Restores:
    """Follow the saver's restore operation; `restoring` are the nodes it needs, with the functions they call."""
    restores = Restores()
    if any(nodes[name].op == "RestoreV2" for name in restoring):  # TF1: all in the main graph
        main = file.nodes(meta_graph.main, _RESTORING, MAX_MESSAGE_BYTES)
        restores.collect({name: main[name] for name in restoring}, {})
    for name, called in restoring.items():  # TF2: a function gets the variables' handles as arguments
        for function in called:
            body = meta_graph.functions.get(function)
            if body is not None and "RestoreV2" in body.ops:
                inputs = map(node_of, nodes[name].inputs)
                arguments = dict(zip(file.arguments(body), inputs, strict=False))
                restores.collect(file.nodes(body, _RESTORING, MAX_MESSAGE_BYTES), arguments)
    return restores


class Restores:
    """Which nodes of the main graph are filled from which checkpoint key, and of which type each key is asked.

    `computed` are the keys that are one of several that a node is computed from, such as the scales of its levels.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.targets: dict[str, tuple[str, ...]] = {}
        self.requested: dict[str, str] = {}
        self.computed: set[str] = set()

    def collect(self, nodes: Mapping[str, Node], arguments: Mapping[str, str]) -> None:
        """Add what the assignments of a body fill; `arguments` are the nodes that it was called with."""
        names: dict[str, list[str]] = {}  # by the constant that has them: hundreds may take the same
        keys = {name: self._requests(node, nodes, names) for name, node in nodes.items() if node.op == "RestoreV2"}
        for node in nodes.values():
            if node.op not in _ASSIGNING or len(node.inputs) < 2:
                continue
            target = node.inputs[0]
            if target not in arguments:
                target = node_of(origin(target, nodes))
            target = arguments.get(target, target)
            for value in node.inputs[1:]:
                behind = tuple(_keys_behind(value, nodes, keys))
                if node_of(origin(value, nodes)) not in keys:
                    self.computed.update(behind)
                for key in behind:
                    self.targets[key] = (*self.targets[key], target) if key in self.targets else (target,)

    def _requests(self, node: Node, nodes: Mapping[str, Node], names: dict[str, list[str]]) -> list[Sequence[str]]:
        """Return the keys that each output of a RestoreV2 stands for, noting their types.

        In a loop it is a row after the other of a constant that has as many columns as it has outputs. `names` are
        those already read.
        """
        source = _constant_behind(node.inputs[1], nodes) if len(node.inputs) > 1 else ""
        if source not in names:
            strings = attr_strings(nodes[source]) if source in nodes else None
            names[source] = [key.decode("utf-8", "replace") for key in strings or ()]
        keys, types = names[source], attr_types(node, "dtypes")
        if len(keys) > len(types) > 0:
            found: list[Sequence[str]] = [keys[index :: len(types)] for index in range(len(types))]
        else:
            found = [(key,) for key in keys]
        for each, dtype in zip(found, types, strict=False):
            self.requested.update(dict.fromkeys(each, dtype))
        return found


def _constant_behind(reference: str, nodes: Mapping[str, Node]) -> str:
    """Return the constant that a value is, or is picked from by what has it as its first input."""
    for _ in range(MAX_HANDED_ON):
        node = nodes.get(node_of(reference))
        if node is None or node.op == "Const" or not node.inputs:
            break
        reference = node.inputs[0]
    return node_of(reference)


def copies(nodes: Mapping[str, Node], restored: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the variables that loading fills and that are copies of some that it does not fill, with those.

    `tf.saved_model.save` of a Keras 3 model puts every variable there twice: one that the signatures read, and one
    that begins as its copy and that the saver knows. A variable that is filled itself, such as a network of which
    another one is a delayed copy, is not meant.
    """
    filled = {name for targets in restored.values() for name in targets}
    found: dict[str, tuple[str, ...]] = {}
    for node in nodes.values():
        if node.op == "AssignVariableOp" and len(node.inputs) > 1 and node_of(node.inputs[0]) in filled:
            source = node_of(origin(node.inputs[1], nodes))
            if source in nodes and nodes[source].op == "VarHandleOp" and source not in filled:
                target = node_of(node.inputs[0])
                found[target] = (*found.get(target, ()), source)
    return found


def node_of(reference: str) -> str:
    """Return the node that an input of a node refers to: `^name`, `name`, `name:1` or `name:output:1`."""
    return reference.removeprefix("^").partition(":")[0]


def origin(reference: str, nodes: Mapping[str, Node]) -> str:
    """Follow a value back through operations with one input, such as Identity, to where it comes from.

    No further than `MAX_HANDED_ON`, so that very many values with one long way are no square of it.
    """
    for _ in range(MAX_HANDED_ON):
        node = nodes.get(node_of(reference))
        if node is None or node.op in _ORIGINS:
            break
        inputs = node.inputs
        if len(inputs) > 1:
            inputs = tuple(name for name in inputs if not name.startswith("^"))
        if len(inputs) != 1:
            break
        reference = inputs[0]
    return reference


def _keys_behind(
    reference: str, nodes: Mapping[str, Node], keys: Mapping[str, Sequence[Sequence[str]]]
) -> Iterator[str]:
    """Yield the checkpoint keys that a value is computed from: of quantized weights the levels and their scales."""
    seen, pending = {reference}, [reference]
    while pending:
        source, _, output = pending.pop().partition(":")
        if source in keys:
            index = _last_number(output)
            if index < len(keys[source]):
                yield from keys[source][index]
        elif source in nodes:
            inputs = [name for name in nodes[source].inputs if not name.startswith("^") and name not in seen]
            seen.update(inputs)
            pending.extend(inputs)


def _last_number(output: str) -> int:
    """Return which output a reference means: `1` or `tensors:1`, and the first where it does not say."""
    number = output.rpartition(":")[2]
    return int(number) if number.isdigit() else 0
