"""The report as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from servegraph.inspect_graph.findings import counts
from servegraph.inspect_graph.inspection import Inspection
from servegraph.inspect_graph.signatures import serving_signatures, shape_text
from servegraph.machines.sizes import format_size
from servegraph.savedmodel.graph import MetaGraph
from servegraph.savedmodel.reachability import OBJECT_GRAPH_KEY

LARGEST = 5
COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}

# Paints a text in a named colour, or returns it as it is.
Paint = Callable[[str, str], str]


def render(inspection: Inspection, paint: Paint = lambda text, colour: text) -> str:
    """Return the report as lines; `paint` adds colour."""
    return "\n".join(_lines(inspection, paint))


def _lines(inspection: Inspection, paint: Paint) -> Iterator[str]:
    memory = inspection.memory_bytes
    yield paint(inspection.uri, "bold")
    yield f"  {format_size(inspection.size_bytes)} in {len(inspection.files)} files" + (
        f", about {format_size(memory)} of memory when loaded" if memory is not None else ""
    )
    yield "  " + ", ".join(f"{role} {format_size(size)}" for role, size in inspection.bytes_by_role.items())
    for meta_graph in inspection.graph.meta_graphs if inspection.graph else ():
        yield ""
        yield from _meta_graph_lines(meta_graph, paint)
    if inspection.weights and inspection.weights.tensor_count:
        yield ""
        yield from _variable_lines(inspection, paint)
    yield ""
    yield from _finding_lines(inspection, paint)


def _meta_graph_lines(meta_graph: MetaGraph, paint: Paint) -> Iterator[str]:
    functions = meta_graph.functions.values()
    nodes = meta_graph.main.node_count + sum(body.node_count for body in functions)
    written = f"written by TensorFlow {meta_graph.tf_version}" if meta_graph.tf_version else "of unknown origin"
    yield paint(f"MetaGraph [{', '.join(meta_graph.tags)}]", "bold") + (
        f"  {nodes:,} nodes, {len(functions):,} functions, {written}"
    )
    for name, signature in serving_signatures(meta_graph).items():
        yield f"  {paint(name, 'cyan')}  {signature.method_name}"
        for arrow, infos in (("→", signature.inputs), ("←", signature.outputs)):
            for key, info in infos.items():
                yield f"    {arrow} {key}  {shape_text(info)}"


def _variable_lines(inspection: Inspection, paint: Paint) -> Iterator[str]:
    weights = inspection.weights
    assert weights is not None
    by_dtype = ", ".join(f"{dtype} {format_size(size)}" for dtype, size in weights.bytes_by_dtype.items())
    yield (
        f"{paint('Variables', 'bold')}  {weights.tensor_count:,} tensors, "
        f"{format_size(weights.size_bytes)} ({by_dtype})"
    )
    tensors = (entry for entry in inspection.tensors if entry.key != OBJECT_GRAPH_KEY)
    for entry in sorted(tensors, key=lambda entry: -entry.size_bytes)[:LARGEST]:
        yield f"  {format_size(entry.size_bytes):>10}  {entry.dtype} {list(entry.shape)}  {entry.key}"


def _finding_lines(inspection: Inspection, paint: Paint) -> Iterator[str]:
    findings = list(inspection.findings)
    number = counts(findings)
    checked = "checksums compared" if inspection.verified else "checksums not compared (--verify)"
    if not findings:
        yield paint("Nothing found wrong", "green") + f", {checked}."
        return
    summary = ", ".join(f"{count} {severity}" for severity, count in number.items() if count)
    yield paint("Findings", "bold") + f"  {summary}; {checked}"
    for item in findings:
        yield f"  {paint(f'{item.severity:7}', COLOURS[item.severity])} {item.code}: {item.message}"
        yield f"          fix: {item.fix}"
