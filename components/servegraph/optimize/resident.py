"""The rung that keeps embedding tables in memory as they are stored, as a smaller float or as int8.

Of a table that is only gathered from, each call needs a few rows: these are turned back into floats, with the bits that
the whole table would have had, and it stays as small as it is on disk for as long as the model is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.optimize.gathers import gather_from, gathers_of
from servegraph.optimize.share import changes_variables
from servegraph.rewriting.contents import Content, size_bytes
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.forms import FLOATS, Cast, Form, Part
from servegraph.rewriting.graph import Nodes, free_prefix, node_name
from servegraph.rewriting.int8 import Int8, plan_int8
from servegraph.rewriting.meta_graph import ServingGraph, keep_what_serves, with_resource_variables
from servegraph.rewriting.restores import variable
from servegraph.rewriting.weights import Weight, loosen, weights_of
from servegraph.savedmodel.bundle_reader import BundleReader

LEAST_ROWS = 512  # of a table; of a smaller one a call may need most
_WORTH_BYTES = 16 * 2**20  # of a table in memory: for less, nobody need wait until it is known how fast that is
_Choose = Callable[[Content, Form | None, BundleReader | None], Form | None]


def keep_resident(draft: Draft) -> Draft:
    """Hold tables [rows, columns] that are only gathered from as int8 with scales, and scale the gathered rows."""
    return _holding(draft, _as_int8)


def stay_resident(draft: Draft) -> Draft:
    """Hold large tables that are only gathered from in the form in which they are stored, and turn back gathered rows.

    Those stored as a smaller float and as int8; the answers have the same bits as before.
    """
    return _holding(draft, _as_stored)


def _as_int8(content: Content, now: Form | None, tensors: BundleReader | None) -> Form | None:
    return now if isinstance(now, Int8) else plan_int8(content, tensors)


def _as_stored(content: Content, now: Form | None, _: BundleReader | None) -> Form | None:
    return now if isinstance(now, (Int8, Cast)) and size_bytes(content) >= _WORTH_BYTES else None


def _holding(draft: Draft, choose: _Choose) -> Draft:
    """Hold tables of which rows alone are gathered in the forms that are chosen for them, if any are."""
    loose = loosen(draft).with_graphs(with_resource_variables)
    if any(changes_variables(graph) for graph in loose.serving_graphs):
        return draft
    uses = [gathers_of(graph) for graph in loose.serving_graphs]
    forms: dict[str, Form] = {}
    with loose.tensors() as tensors:
        for weight in weights_of(loose):
            is_table = len(weight.content.shape) == 2 and weight.content.shape[0] >= LEAST_ROWS
            if is_table and weight.content.dtype in FLOATS and _is_only_gathered(weight, loose, uses):
                form = choose(weight.content, loose.forms.get(weight.key), tensors)
                if form is not None:
                    forms[weight.key] = form
    if not forms:
        return draft
    graphs = tuple(
        keep_what_serves(_resident(graph, gathers, loose.contents, forms))
        for graph, gathers in zip(loose.serving_graphs, uses, strict=True)
    )
    return replace(loose, graphs=graphs, forms={**loose.forms, **forms}).with_needed_contents()


def _is_only_gathered(weight: Weight, draft: Draft, uses: Sequence[Mapping[str, Sequence[NodeDef]]]) -> bool:
    return all(
        handle in gathers
        for graph, gathers in zip(draft.serving_graphs, uses, strict=True)
        for handle in weight.handles
        if handle in graph.nodes
    )


def _resident(
    graph: ServingGraph,
    gathers: Mapping[str, Sequence[NodeDef]],
    contents: Mapping[str, Content],
    forms: Mapping[str, Form],
) -> ServingGraph:
    nodes, restores = dict(graph.nodes), []
    for restore in graph.restores:
        key = restore.tensors[0].key
        if key not in forms:
            restores.append(restore)
            continue
        device, parts = nodes[restore.handle].device, forms[key].parts
        held_at = free_prefix(nodes, f"{restore.handle}/held")
        names = [f"{held_at}/{what}" for what in ("levels", "scales")[: len(parts)]]
        for name, part in zip(names, parts, strict=True):
            held = variable(nodes, name, key, part, device)
            restores.append(replace(held, tensors=(replace(held.tensors[0], part=part),)))
        for gather in gathers[restore.handle]:
            below = free_prefix(nodes, f"{gather.name}/rows")
            stored = [_of_rows(nodes, below, gather, name, part) for name, part in zip(names, parts, strict=True)]
            last = nodes.pop(node_name(forms[key].decode(nodes, below, stored, contents[key])))
            last.name = gather.name
            nodes[gather.name] = last
    return replace(graph, nodes=nodes, restores=tuple(restores))


def _of_rows(nodes: Nodes, below: str, gather: NodeDef, name: str, part: Part) -> str:
    """Return the rows of a part that are gathered; a scale for each column is of all rows."""
    if not part.has_rows:
        return name
    return gather_from(nodes, f"{below}/{name.rpartition('/')[2]}_stored", gather, f"{name}/handle", part.dtype)
