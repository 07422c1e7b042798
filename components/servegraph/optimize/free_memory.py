"""How much memory a process may still take: what the machine has free, or what its container leaves."""

from __future__ import annotations

from pathlib import Path

from servegraph.errors import ModelError
from servegraph.machines.sizes import format_size
from servegraph.rewriting.contents import size_bytes
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.restores import StoredTensor

# What is in a graph is there many times: for 307 MB of constants this process takes 2.1 GB above TensorFlow's import,
# and the one that asks 5.7 GB.
_GRAPH_TIMES = 25
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = (  # limit, use and statistics, of version 2 and of version 1 as a container sees its own
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
_CACHE = ("inactive_file", "total_inactive_file")  # counts as used, and is given back when memory runs short


def free_bytes(proc: Path = _MEMINFO, cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes that can still be taken; None where the system does not say (it is no Linux)."""
    found = []
    if proc.exists():
        lines = dict(line.split(":", 1) for line in proc.read_text().splitlines())
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    for limit, used, statistics in _CGROUPS:
        try:
            stat = dict(line.split() for line in (cgroups / statistics).read_text().splitlines())
            cache = next((int(stat[name]) for name in _CACHE if name in stat), 0)
            found.append(int((cgroups / limit).read_text()) - int((cgroups / used).read_text()) + cache)
        except (OSError, ValueError):  # no such file, or no limit: "max"
            continue
    return min(found, default=None)


def needed_bytes(draft: Draft) -> int:
    """Return about what it takes to change the model and ask it."""
    return draft.variables_bytes + _GRAPH_TIMES * draft.graph_bytes


def held_bytes(draft: Draft) -> int:
    """Return what the variables of the largest MetaGraph take once it is served; text does not count."""

    def held(tensor: StoredTensor) -> int:
        content = draft.contents[tensor.key]
        if tensor.part is not None:
            return tensor.part.size_bytes
        return 0 if content.dtype == "string" else size_bytes(content)

    sums = (sum(held(t) for restore in graph.restores for t in restore.tensors) for graph in draft.serving_graphs)
    return max(sums, default=0)


def lack_of_room(one: Draft, other: Draft, free: int | None) -> str:
    """Return that two models cannot be served side by side, empty where they can, or the system does not say."""
    needed = held_bytes(one) + held_bytes(other)
    if free is None or needed <= free:
        return ""
    return f"not compared: both at once take about {format_size(needed)} of memory, and {format_size(free)} are free"


def require_room(needed_bytes: int, free: int | None) -> None:
    """Raise ModelError (code `NO_MEMORY`) where a model that needs this much cannot be loaded beside all else."""
    if free is not None and needed_bytes > free:
        raise ModelError(
            f"To ask the model takes about {format_size(needed_bytes)} of memory, and {format_size(free)} are free.",
            code="NO_MEMORY",
            fix="Optimize it on a machine with more memory; nothing was written.",
        )
