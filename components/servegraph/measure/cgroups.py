"""Control groups that limit a child's CPUs and memory, of version 2 or 1, whichever has the two controllers.

A group is made below one that this process is in, so what limits this process limits the child too. Version 2 hands
controllers only to groups beside processes' own, never below one with processes in it: there the nearest ancestor that
hands them down is taken. Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_PERIOD_US = 100_000
_REMOVE_TIMEOUT_S = 5.0  # the kernel takes a moment to take a process that has ended out of its group


class Hierarchy(NamedTuple):
    """A mounted hierarchy: where, the group of this process in it, its version and, for version 1, its controllers."""

    mount: Path
    own: Path
    version: int
    controllers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Group:
    """A group that was made: one directory in version 2, one for each controller in version 1."""

    directories: tuple[Path, ...]

    def join(self) -> None:
        """Put this process into the group."""
        for directory in self.directories:
            (directory / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def oom_kills(self) -> int:
        """How many processes the kernel has ended because the group had no memory left."""
        for directory in self.directories:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    for line in (directory / name).read_text().splitlines():
                        if line.startswith("oom_kill "):
                            return int(line.split()[1])
        return 0

    def __str__(self) -> str:
        """The group as an argument of a command line, for `named`."""
        return "\n".join(map(str, self.directories))

    @staticmethod
    def named(text: str) -> Group:
        """Return the group whose `str` is `text`."""
        return Group(tuple(map(Path, text.splitlines())))


@contextlib.contextmanager
def limited_group(cpus: int, memory_bytes: int | None, found: list[Hierarchy] | None = None) -> Iterator[Group | None]:
    """Yield a group with the limits, removed afterwards; None where none can be made.

    `found` are the hierarchies to look in, those of this machine where it is None.
    """
    made: list[Path] = []
    try:
        yield _make(cpus, memory_bytes, here() if found is None else found, made)
    finally:
        for directory in made:
            _remove(directory)


def here() -> list[Hierarchy]:
    """Return the hierarchies that are mounted here; none where the kernel has no control groups."""
    try:
        return hierarchies(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    except OSError:
        return []


def hierarchies(mountinfo: str, own_groups: str) -> list[Hierarchy]:
    """Return the hierarchies that `/proc/self/mountinfo` lists, with the groups of `/proc/self/cgroup`."""
    own = {names: path for _, names, path in (line.split(":", 2) for line in own_groups.splitlines())}
    found = []
    for line in mountinfo.splitlines():
        mounted, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        root, mount = mounted.split()[3:5]
        if kind == "cgroup2":
            found.append(Hierarchy(Path(mount), _below(mount, root, own.get("", "/")), 2))
        elif kind == "cgroup":
            names = next((names for names in own if names and set(names.split(",")) <= set(options.split(","))), None)
            if names is not None:
                controllers = frozenset(names.split(","))
                found.append(Hierarchy(Path(mount), _below(mount, root, own[names]), 1, controllers))
    return found


def _below(mount: str, root: str, path: str) -> Path:
    """Return the directory of the group `path`, where `root` is mounted; the mount itself if it shows no such."""
    below = os.path.relpath(path, root)
    directory = Path(mount, below)
    return Path(mount) if below.startswith("..") else directory


def _make(cpus: int, memory_bytes: int | None, found: list[Hierarchy], made: list[Path]) -> Group | None:
    """Make a group, noting its directories in `made`; what is made and cannot be limited is noted too."""
    name = f"servegraph-{os.getpid()}-{secrets.token_hex(4)}"
    wanted = {"cpu"} if memory_bytes is None else {"cpu", "memory"}
    for parents, files in ((_parents_2, _files_2), (_parents_1, _files_1)):
        groups: dict[Path, dict[str, str]] = {}
        for controller, parent in parents(found, wanted).items():
            groups.setdefault(parent / name, {}).update(files(controller, cpus, memory_bytes))
        try:
            for directory, values in groups.items():
                made.append(directory)
                directory.mkdir()
                for file, value in values.items():
                    if file not in _SWAP or (directory / file).exists():
                        (directory / file).write_text(value)
        except OSError:
            continue
        if groups:
            return Group(tuple(groups))
    return None


def _parents_2(found: list[Hierarchy], wanted: set[str]) -> dict[str, Path]:
    """Return the nearest group around this process's that hands down all that is wanted and lets it move."""
    for hierarchy in (one for one in found if one.version == 2):
        for parent in (hierarchy.own, *hierarchy.own.parents):
            with contextlib.suppress(OSError):
                handed = (parent / "cgroup.subtree_control").read_text().split()
                # Who moves a process needs to write here, in the common ancestor of where it was and where it goes.
                if wanted <= set(handed) and os.access(parent / "cgroup.procs", os.W_OK):
                    return dict.fromkeys(sorted(wanted), parent)
            if parent == hierarchy.mount:
                break
    return {}


def _parents_1(found: list[Hierarchy], wanted: set[str]) -> dict[str, Path]:
    """Return this process's group for each of the controllers, nothing where one is not there."""
    own = {controller: one.own for one in found for controller in sorted(wanted & one.controllers)}
    return own if wanted == own.keys() else {}


_SWAP = ("memory.swap.max", "memory.memsw.limit_in_bytes")  # not there on a machine without swap, or its accounting


def _files_2(controller: str, cpus: int, memory_bytes: int | None) -> dict[str, str]:
    if controller == "cpu":
        return {"cpu.max": f"{cpus * _PERIOD_US} {_PERIOD_US}"}
    return {"memory.max": str(memory_bytes), "memory.swap.max": "0"}


def _files_1(controller: str, cpus: int, memory_bytes: int | None) -> dict[str, str]:
    if controller == "cpu":
        return {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(cpus * _PERIOD_US)}
    return dict.fromkeys(("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), str(memory_bytes))


def _remove(directory: Path) -> None:
    """Remove a group, and end what is still in it: it was started by the child that the group was for."""
    deadline_s = time.monotonic() + _REMOVE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            directory.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            with contextlib.suppress(OSError):
                for pid in (directory / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.02)
