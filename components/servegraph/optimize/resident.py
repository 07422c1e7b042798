"""The rung that keeps embedding tables as int8 in memory, not only on disk.

Of a table that is only gathered from, each call needs a few rows: these are turned back into floats, and the table
stays a quarter of its size for as long as the model is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.optimize.gathers import gather_from, gathers_of
from servegraph.optimize.share import changes_variables
from servegraph.rewriting.contents import Content
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.forms import HALVES, binary, cast
from servegraph.rewriting.graph import Nodes
from servegraph.rewriting.int8 import Int8, plan_int8
from servegraph.rewriting.meta_graph import ServingGraph, keep_what_serves, with_resource_variables
from servegraph.rewriting.restores import variable
from servegraph.rewriting.weights import Weight, loosen, weights_of

_DTYPES = ("float32", *HALVES)
LEAST_ROWS = 512  # of a table; of a smaller one a call may need most


def keep_resident(draft: Draft) -> Draft:
    """Hold tables [rows, columns] that are only gathered from as int8 with scales, and scale the gathered rows."""
    loose = loosen(draft).with_graphs(with_resource_variables)
    if any(changes_variables(graph) for graph in loose.serving_graphs):
        return draft
    uses = [gathers_of(graph) for graph in loose.serving_graphs]
    forms: dict[str, Int8] = {}
    with loose.tensors() as tensors:
        for weight in weights_of(loose):
            is_table = len(weight.content.shape) == 2 and weight.content.shape[0] >= LEAST_ROWS
            if is_table and weight.content.dtype in _DTYPES and _is_only_gathered(weight, loose, uses):
                now = loose.forms.get(weight.key)
                form = now if isinstance(now, Int8) else plan_int8(weight.content, tensors)
                if isinstance(form, Int8):
                    forms[weight.key] = form.with_wide_scales()
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
    forms: Mapping[str, Int8],
) -> ServingGraph:
    nodes, restores = dict(graph.nodes), []
    for restore in graph.restores:
        key = restore.tensors[0].key
        if key not in forms:
            restores.append(restore)
            continue
        device, parts = nodes[restore.handle].device, forms[key].parts
        names = [f"{restore.handle}/{what}" for what in ("levels", "scales")]
        for name, part in zip(names, parts, strict=True):
            held = variable(nodes, name, key, part, device)
            restores.append(replace(held, tensors=(replace(held.tensors[0], part=part),)))
        for gather in gathers[restore.handle]:
            _turn_back(nodes, gather, names[0], names[1], contents[key].dtype, is_by_row=parts[1].has_rows)
    return replace(graph, nodes=nodes, restores=tuple(restores))


def _turn_back(nodes: Nodes, gather: NodeDef, levels: str, scales: str, dtype: str, *, is_by_row: bool) -> None:
    """Gather levels, and scales where each row has its own, and multiply them under the gather's name."""
    rows = gather_from(nodes, f"{gather.name}/levels", gather, f"{levels}/handle", "int8")
    by = gather_from(nodes, f"{gather.name}/scales", gather, f"{scales}/handle", "float32") if is_by_row else scales
    name = gather.name if dtype == "float32" else f"{gather.name}/scaled"
    binary(nodes, name, "Mul", cast(nodes, f"{gather.name}/float", rows, "int8", "float32"), by)
    if dtype != "float32":
        cast(nodes, gather.name, name, "float32", dtype)
