"""Names of nodes that came out of functions.

TensorFlow puts the path of calls before them, and before what was in a loop the path of the loop again. Every reader of
a node repeats its name: of the graph of a recurrent model, inlined, that would be more than four fifths.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set

from servegraph.rewriting.graph import Nodes, is_handle, renamed

_CALL = re.compile(r"Func|(Stateful)?PartitionedCall(_\d+)?")
_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")  # tensorflow/core/graph/graph_constructor.cc


def without_calls(nodes: Nodes, known: Set[str]) -> Nodes:
    """Return the nodes, those that are not `known` named as they were inside of their function."""
    taken = set(nodes)
    names: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for name, node in sorted(nodes.items()):  # numbers must not depend on an order
        plain = _plain(name)
        if name in known or is_handle(node) or len(plain) >= len(name) or not _NAME.fullmatch(plain):
            continue
        free = plain
        while free in taken:
            numbers[plain] += 1
            free = f"{plain}_{numbers[plain]}"
        taken.add(free)
        names[name] = free
    return renamed(nodes, names)


def _plain(name: str) -> str:
    """Return the name without calls, from where its outermost scope begins for the last time."""
    *path, own = name.split("/")
    scopes = [*(scope for scope in path if not _CALL.fullmatch(scope)), own]
    return "/".join(scopes[max(at for at, scope in enumerate(scopes) if scope == scopes[0]) :])
