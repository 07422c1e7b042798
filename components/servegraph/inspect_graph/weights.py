"""What the variables weigh, and which of it is dead weight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from servegraph.inspect_graph.findings import Finding, finding
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.reachability import OBJECT_GRAPH_KEY, Baggage

# Duplicates of less than this share of the variables are equal by chance, and not worth a word.
MIN_DUPLICATE_SHARE = 0.01


class Weights(NamedTuple):
    """The tensors of a model in sums, without the description of Python's objects among them.

    `duplicates` are groups that are equal by size, type and checksum.
    """

    tensor_count: int
    size_bytes: int
    duplicate_bytes: int
    bytes_by_dtype: Mapping[str, int]
    duplicates: tuple[tuple[str, ...], ...]


def weigh(entries: Mapping[str, TensorEntry]) -> Weights:
    """Add up the tensors of a checkpoint. Aliased tensors, which share their bytes, count once."""
    tensors = [entry for entry in entries.values() if entry.key != OBJECT_GRAPH_KEY]
    by_dtype: dict[str, int] = defaultdict(int)
    groups: dict[tuple[object, ...], list[TensorEntry]] = defaultdict(list)
    places = set()
    for entry in tensors:
        place = (entry.shard, entry.offset, entry.size_bytes)
        if entry.slices or entry.size_bytes == 0 or place not in places:
            by_dtype[entry.dtype] += entry.size_bytes
        if not entry.slices:
            places.add(place)
            if entry.size_bytes:
                groups[entry.dtype, entry.shape, entry.size_bytes, entry.crc32c].append(entry)
    duplicate_bytes, duplicates = 0, []
    for group in groups.values():
        stored = {(entry.shard, entry.offset) for entry in group}
        if len(stored) > 1:
            duplicate_bytes += group[0].size_bytes * (len(stored) - 1)
            duplicates.append(group)
    duplicates.sort(key=lambda group: -group[0].size_bytes * len(group))
    keys = tuple(tuple(entry.key for entry in group) for group in duplicates)
    return Weights(len(tensors), sum(by_dtype.values()), duplicate_bytes, dict(by_dtype), keys)


def check_weights(weights: Weights, baggage: list[Baggage]) -> Iterator[Finding]:
    """Find dead weight: equal tensors, optimizer state, variables that no signature reads."""
    if weights.duplicate_bytes > weights.size_bytes * MIN_DUPLICATE_SHARE:
        share = 100 * weights.duplicate_bytes / max(weights.size_bytes, 1)
        group = weights.duplicates[0]
        copies = sum(len(keys) - 1 for keys in weights.duplicates)
        yield finding(
            "DUPLICATE_TENSORS",
            f"{copies} tensors repeat another one: {weights.duplicate_bytes:,} bytes, {share:.0f} % of the "
            f"variables, e.g. {group[0]} = {group[1]}.",
        )
    for kind, code in (("slot", "OPTIMIZER_STATE"), ("unread_tensor", "UNREAD_TENSORS")):
        items = [item for item in baggage if item.kind == kind]
        if items:
            stored = sum(item.stored_bytes for item in items)
            share = 100 * stored / max(weights.size_bytes, 1)
            yield finding(
                code,
                f"{len(items)} tensors, {stored:,} bytes, {share:.0f} % of the variables, e.g. {items[0].name}.",
            )
