"""The rung that writes a graph, and the vocabularies restored into its tables, as short as they can be read.

Frameworks name a node after every scope and function that it came through, and each of its readers repeats the name: of
the graph of a small model that is more than half. Names that someone may know stay: those of inputs and outputs, and of
variables, tables and assets. Stored tensors are numbered: without an object graph nobody asks for them by their key.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import replace
from itertools import product

from tensorflow.core.framework.function_pb2 import FunctionDef

from servegraph.optimize.stored_tables import plan_table
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.forms import Form
from servegraph.rewriting.graph import is_handle, node_name, renamed
from servegraph.rewriting.meta_graph import ServingGraph

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Shapes are what shape inference finds as well, colocation names other nodes, and errors name a variable anyway.
_HINTS = ("_output_shapes", "_class", "debug_name")


def shorten(draft: Draft) -> Draft:
    """Rename the inner nodes of each graph, leave out hints, number what is stored, and deflate vocabularies."""
    shortened = draft.with_graphs(_shortened)
    if draft.untouched:  # it asks for its tensors by their keys, and as they are
        return shortened
    return replace(shortened, forms={**_tables(shortened), **draft.forms}, has_short_keys=True)


def _tables(draft: Draft) -> dict[str, Form]:
    """Return the forms of tensors that only fill tables."""
    found: dict[str, Form] = {}
    others = {tensor.key for r in draft.restores for tensor in r.tensors if not r.put.op.startswith("LookupTable")}
    for key, content in draft.contents.items():
        if key not in others and (form := plan_table(content)) is not None:
            found[key] = form
    return found


def _shortened(graph: ServingGraph) -> ServingGraph:
    known = {*graph.roots, *(node_name(asset.tensor_info.name) for asset in graph.assets)}
    known |= {restore.handle for restore in graph.restores}
    known |= {name for name, node in graph.nodes.items() if is_handle(node)}
    new = {name: name for name in graph.nodes}
    new |= _short_names([name for name in graph.nodes if name not in known], known)

    nodes = renamed(graph.nodes, new)
    library = {name: _copy(function) for name, function in graph.library.items()}
    for node in (*nodes.values(), *(node for function in library.values() for node in function.node_def)):
        for hint in _HINTS:
            node.attr.pop(hint, None)
    initializers = tuple(new[name] for name in graph.initializers)
    return replace(graph, nodes=nodes, library=library, initializers=initializers, is_short=True)


def _copy(function: FunctionDef) -> FunctionDef:
    copy = FunctionDef()
    copy.CopyFrom(function)
    return copy


def _short_names(names: Collection[str], taken: Set[str]) -> dict[str, str]:
    """Return a name for each that is as long as all others and comes before those that its own came before.

    TensorFlow sorts what commutes by name before it looks for what it can fuse, and finds a GELU in one order only. A
    second run gives the same names.
    """
    length = 1
    while len(_DIGITS) ** length < len(names) + len(taken):
        length += 1
    free = (name for name in map("".join, product(_DIGITS, repeat=length)) if name not in taken)
    return dict(zip(sorted(names), free, strict=False))
