"""A treemap of the bytes of a model: every file and tensor as an area, at most a few hundred of them.

The layout is that of Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from servegraph.inspect_graph.inspection import Inspection
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.layout import role_of
from servegraph.savedmodel.reachability import OBJECT_GRAPH_KEY, is_slot

MAX_AREAS = 300  # more are neither seen nor drawn quickly
MIN_SHARE = 0.0004  # of the whole; smaller ones are put together

Kind = Literal["read", "unread", "optimizer", "constants", "graph", "asset", "other"]
KINDS: dict[Kind, str] = {
    "read": "variables that a signature reads",
    "unread": "variables that none reads",
    "optimizer": "optimizer state",
    "constants": "constants in the graph",
    "graph": "the graph without its constants",
    "asset": "assets",
    "other": "other files",
}


class Part(NamedTuple):
    """A part of the model: what it is called, how many bytes it has, what it is."""

    name: str
    size_bytes: int
    kind: Kind


class Area(NamedTuple):
    """A part and its rectangle."""

    part: Part
    x: float
    y: float
    width: float
    height: float


def parts_of(inspection: Inspection) -> list[Part]:
    """Return what the bytes of a model are, the largest first, the smallest put together."""
    parts = sorted(_all_parts(inspection), key=lambda part: -part.size_bytes)
    total = sum(part.size_bytes for part in parts)
    shown = [part for part in parts[:MAX_AREAS] if part.size_bytes > total * MIN_SHARE]
    rest: dict[Kind, list[Part]] = {}
    for part in parts[len(shown) :]:
        rest.setdefault(part.kind, []).append(part)
    for kind, small in rest.items():
        size = sum(part.size_bytes for part in small)
        if size:
            name = small[0].name if len(small) == 1 else f"{len(small):,} smaller ones ({KINDS[kind]})"
            shown.append(Part(name, size, kind))
    return sorted(shown, key=lambda part: -part.size_bytes)


def _all_parts(inspection: Inspection) -> Iterator[Part]:
    places = set()
    for entry in inspection.tensors:
        place = (entry.shard, entry.offset, entry.size_bytes)
        if entry.slices or place not in places:  # a tensor with two names has its bytes once
            yield Part(entry.key, entry.size_bytes, _kind_of(entry, inspection))
        places.add(place)
    constants = sum(
        body.const_bytes
        for meta_graph in (inspection.graph.meta_graphs if inspection.graph else ())
        for body in (meta_graph.main, *meta_graph.functions.values())
    )
    for info in inspection.files:
        role = role_of(info.path)
        if role == "graph":
            yield Part(f"constants in {info.path}", min(constants, info.size_bytes), "constants")
            yield Part(info.path, max(info.size_bytes - constants, 0), "graph")
        elif role != "variables" or not inspection.tensors:
            yield Part(info.path, info.size_bytes, "asset" if role == "asset" else "other")


def _kind_of(entry: TensorEntry, inspection: Inspection) -> Kind:
    if entry.key == OBJECT_GRAPH_KEY:
        return "other"
    if inspection.readers.get(entry.key, ("",)):  # read, or not known to be unread
        return "read"
    return "optimizer" if is_slot(entry.key) else "unread"


def layout(parts: Sequence[Part], width: float, height: float) -> list[Area]:
    """Return a rectangle for each part, as square as can be; `parts` come sorted, the largest first."""
    total = sum(part.size_bytes for part in parts)
    if not total:
        return []
    scale = width * height / total
    areas: list[Area] = []
    x = y = 0.0
    waiting = [part for part in parts if part.size_bytes]
    while waiting:
        side = max(min(width - x, height - y), 0.0)
        row = _best_row([part.size_bytes * scale for part in waiting], side)
        thickness = sum(part.size_bytes for part in waiting[:row]) * scale / side if side else 0.0
        along = 0.0
        upright = width - x >= height - y  # the row stands at the left of what is free, or lies on top
        for part in waiting[:row]:
            # What is left beside something 10^12 times larger is known to few digits: never beyond the edge.
            length = min(part.size_bytes * scale / thickness if thickness else 0.0, max(side - along, 0.0))
            if upright:
                areas.append(Area(part, x, y + along, thickness, length))
            else:
                areas.append(Area(part, x + along, y, length, thickness))
            along += length
        x, y = (x + thickness, y) if upright else (x, y + thickness)
        waiting = waiting[row:]
    return areas


def _best_row(sizes: Sequence[float], side: float) -> int:
    """Return how many of the sizes make the row whose worst rectangle is the least oblong."""
    best = float("inf")
    total = 0.0
    for count, size in enumerate(sizes, start=1):
        total += size
        thickness = total / side if side else 0.0
        worst = max(_oblongness(sizes[0], thickness), _oblongness(size, thickness))
        if worst > best:
            return count - 1
        best = worst
    return len(sizes)


def _oblongness(size: float, thickness: float) -> float:
    if not thickness or not size:
        return float("inf")
    length = size / thickness
    return max(length / thickness, thickness / length)
