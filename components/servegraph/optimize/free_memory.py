"""How much memory a process may still take: what the machine has free, or what its container leaves."""

from __future__ import annotations

from pathlib import Path

from servegraph.errors import ModelError
from servegraph.machines.sizes import format_size
from servegraph.rewriting.draft import Draft

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


def require_room(needed_bytes: int, free: int | None) -> None:
    """Raise ModelError (code `NO_MEMORY`) where a model that needs this much cannot be loaded beside all else."""
    if free is not None and needed_bytes > free:
        raise ModelError(
            f"To ask the model takes about {format_size(needed_bytes)} of memory, and {format_size(free)} are free.",
            code="NO_MEMORY",
            fix="Optimize it on a machine with more memory; nothing was written.",
        )
