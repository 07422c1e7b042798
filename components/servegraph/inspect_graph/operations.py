"""What the graph does: operations that are unknown or for training, variables that nothing fills."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from servegraph.inspect_graph.findings import Finding, finding
from servegraph.savedmodel.graph import Body, MetaGraph
from servegraph.savedmodel.ops import TEXT_OPS, TF_VERSION, VARIABLE_OPS, has_lost_its_kernel, known_ops
from servegraph.savedmodel.reachability import INIT, Baggage, Reachability, is_signature

FROZEN_BYTES = 32 * 10**6
_MISSING = f"is not in TensorFlow {TF_VERSION}"


def bodies(meta_graph: MetaGraph) -> tuple[Body, ...]:
    """Return the main graph and all functions."""
    return (meta_graph.main, *meta_graph.functions.values())


def op_counts(meta_graph: MetaGraph) -> dict[str, int]:
    """Return how many nodes there are of each operation, the most frequent first."""
    counted: dict[str, int] = defaultdict(int)
    for body in bodies(meta_graph):
        for op, count in body.ops.items():
            counted[op] += count
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def const_bytes(meta_graph: MetaGraph) -> int:
    """Return the size of the constants in the graph."""
    return sum(body.const_bytes for body in bodies(meta_graph))


def custom_ops(meta_graph: MetaGraph) -> dict[str, list[Body]]:
    """Return the operations that TensorFlow does not have, with the bodies that use them."""
    known = known_ops()
    return _users(meta_graph, lambda op: op not in known and op not in meta_graph.functions)


def _users(meta_graph: MetaGraph, is_meant: Callable[[str], bool]) -> dict[str, list[Body]]:
    """Return the operations that are meant, with the bodies that use them."""
    found: dict[str, list[Body]] = defaultdict(list)
    for body in bodies(meta_graph):
        for op in filter(is_meant, body.ops):
            found[op].append(body)
    return dict(sorted(found.items()))


def check_operations(
    where: str, meta_graph: MetaGraph, reachability: Reachability, training: list[Baggage]
) -> Iterator[Finding]:
    """Find operations that keep a model from being served, or are left from training."""
    watched: dict[str, list[str]] = defaultdict(list)  # in the main graph, by operation
    for node in meta_graph.main.watched:
        watched[node.op].append(node.name)
    for op, users in custom_ops(meta_graph).items():
        name = users[0].name or "the main graph"
        by = _reached_by(watched[op], users, reachability)
        code, misses = ("TEXT_OP", "is TensorFlow Text's") if op in TEXT_OPS else ("CUSTOM_OP", _MISSING)
        yield finding(code, f"{where}: {op} in {name} {misses}{by}.")
    for op, users in _users(meta_graph, has_lost_its_kernel).items():
        by = _reached_by(watched[op], users, reachability)
        yield finding("LOST_KERNEL", f"{where}: {op} has no kernel in TensorFlow {TF_VERSION}{by}.")
    yield from _check_variables(where, meta_graph, reachability)
    yield from _check_training(where, training)
    if const_bytes(meta_graph) >= FROZEN_BYTES:
        yield finding("FROZEN_CONSTANTS", f"{where} has {const_bytes(meta_graph):,} bytes of constants.")


def _reached_by(in_main: list[str], users: list[Body], reachability: Reachability) -> str:
    """Name the entry points that reach an operation in any of the bodies that use it, of the main graph these nodes."""
    reached: dict[str, None] = {}
    for body in users:
        for name in [""] if body.name else in_main:
            reached.update(dict.fromkeys(reachability.reaching(body, name)))
    return f", reached from {', '.join(reached)}" if reached else ""


def _check_variables(where: str, meta_graph: MetaGraph, reachability: Reachability) -> Iterator[Finding]:
    """Find variables that a signature reads and the saver does not fill; Python goes by the object graph instead."""
    code = "RESTORED_IN_PYTHON_ONLY" if meta_graph.has_object_graph else "UNRESTORED_VARIABLE"
    if not reachability.requested:
        return
    filled = {name for targets in reachability.restored.values() for name in targets}
    filled |= reachability.entries[INIT].nodes  # an initializer may set it
    for entry, reach in reachability.entries.items():
        if not is_signature(entry):
            continue
        unfilled = (name for name in reach.nodes - filled if reachability.main_nodes[name].op in VARIABLE_OPS)
        if empty := sorted(unfilled):
            what = f"{len(empty)} variables that its saver does not restore, e.g. {empty[0]}"
            yield finding(code, f"{where} {entry} reads {what}.")


def _check_training(where: str, training: list[Baggage]) -> Iterator[Finding]:
    """Sum up what is left from training, apart by whether a signature reaches it."""
    groups: dict[str, list[Baggage]] = {"TRAINING_OPS": [], "TRAINING_OPS_STORED": []}
    for item in training:
        is_served = any(map(is_signature, item.reachable_from))
        groups["TRAINING_OPS" if is_served else "TRAINING_OPS_STORED"].append(item)
    for code, items in groups.items():
        if not items:
            continue
        kinds = Counter(item.kind.replace("_", " ") for item in items)
        entries = sorted({name for item in items for name in item.reachable_from})
        by = f", reached from {', '.join(entries)}" if entries else ""
        what = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        yield finding(code, f"{where}: {what} operations, e.g. {items[0].name}{by}.")
