"""What this process may use of the machine it runs on."""

from __future__ import annotations

import os
from pathlib import Path

from servegraph.machines.decision import ThisMachine

# A container's memory limit, by control groups 2 and 1. "max" or a number above all memory is no limit.
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def read() -> ThisMachine:
    """Return the CPUs and the memory that this process may use, the limits of its container included."""
    # macOS has no affinity; a machine always has a CPU.
    vcpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in _MEMORY_LIMITS:
        try:
            memory_bytes = min(memory_bytes, int(file.read_text()))
        except (OSError, ValueError):
            continue
    return ThisMachine(vcpus=vcpus, memory_bytes=memory_bytes)
