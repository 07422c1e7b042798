"""The report as one self-contained web page: nothing in it is loaded from elsewhere."""

from __future__ import annotations

from typing import Any

from servegraph.inspect_graph.examples import request_example
from servegraph.inspect_graph.findings import counts
from servegraph.inspect_graph.inspection import Inspection
from servegraph.inspect_graph.operations import op_counts
from servegraph.inspect_graph.signatures import serving_signatures, shape_text, tag_label
from servegraph.inspect_graph.treemap import KINDS, Area, layout, parts_of
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.graph import MetaGraph

MAX_ROWS = 500  # of the tables of tensors and files: a browser draws them at once
MAX_OPS = 25
MAX_OPEN = 20  # signatures of a MetaGraph; of more, each is folded to its name
MAP_WIDTH, MAP_HEIGHT = 1000, 360
MIN_LABEL_WIDTH, MIN_LABEL_HEIGHT, LETTER_WIDTH = 48, 16, 6.6  # a label must fit into its area
LEVELS = {"error": "would not be served", "warning": "works, with something to mend", "info": "good to know"}


def render(inspection: Inspection) -> str:
    """Return the report as HTML."""
    from servegraph.pages.render import (
        render as render_page,
    )  # Jinja: a tenth of a second that only pages cost

    return render_page("servegraph.inspect_graph", "report.html.jinja", **_view(inspection))


def _view(inspection: Inspection) -> dict[str, Any]:
    """Return what the template shows."""
    report = inspection.to_json()
    areas = layout(parts_of(inspection), MAP_WIDTH, MAP_HEIGHT)
    used = {area.part.kind for area in areas}
    meta_graphs = inspection.graph.meta_graphs if inspection.graph else ()
    tensors = sorted(inspection.tensors, key=lambda entry: -entry.size_bytes)
    return {
        "report": report,
        "counts": counts(inspection.findings),
        "levels": LEVELS,
        "areas": [(area, _label(area)) for area in areas],
        "map": {"width": MAP_WIDTH, "height": MAP_HEIGHT},
        "kinds": {kind: what for kind, what in KINDS.items() if kind in used},
        "meta_graphs": [_meta_graph(meta_graph) for meta_graph in meta_graphs],
        "max_rows": MAX_ROWS,
        "max_open": MAX_OPEN,
        "tensors": [_tensor(entry, inspection) for entry in tensors[:MAX_ROWS]],
        "tensor_count": len(tensors),
    }


def _label(area: Area) -> str:
    """Return the end of the part's name, which tells the most, as far as it fits; empty if nothing does."""
    if area.width < MIN_LABEL_WIDTH or area.height < MIN_LABEL_HEIGHT:
        return ""
    name = area.part.name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
    room = int((area.width - 8) / LETTER_WIDTH)
    return name if len(name) <= room else f"…{name[len(name) - room + 1 :]}"


def _meta_graph(meta_graph: MetaGraph) -> dict[str, Any]:
    ops = op_counts(meta_graph)
    most = max(ops.values(), default=1)
    return {
        "label": tag_label(meta_graph),
        "signatures": [
            {
                "name": name,
                "method_name": signature.method_name,
                "inputs": {key: shape_text(info) for key, info in signature.inputs.items()},
                "outputs": {key: shape_text(info) for key, info in signature.outputs.items()},
                "example": request_example(name, signature),
            }
            for name, signature in serving_signatures(meta_graph).items()
        ],
        "ops": [(op, count, 100 * count / most) for op, count in list(ops.items())[:MAX_OPS]],
        "op_count": len(ops),
    }


def _tensor(entry: TensorEntry, inspection: Inspection) -> dict[str, Any]:
    readers = inspection.readers.get(entry.key)
    return {
        "name": entry.key,
        "type": f"{entry.dtype} {list(entry.shape)}",
        "bytes": entry.size_bytes,
        "read_by": None if readers is None else ", ".join(readers),
    }
