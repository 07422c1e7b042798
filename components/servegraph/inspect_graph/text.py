"""The report as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from servegraph.inspect_graph.findings import counts
from servegraph.inspect_graph.inspection import Inspection
from servegraph.inspect_graph.signatures import serving_signatures, shape_text
from servegraph.machines.sizes import format_size
from servegraph.printable import printable
from servegraph.savedmodel.graph import MetaGraph
from servegraph.savedmodel.reachability import OBJECT_GRAPH_KEY

LARGEST = 5
COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}

# Paints a text in a named colour, or returns it as it is.
Paint = Callable[[str, str], str]


class Painted(NamedTuple):
    """A part of a line that has a colour."""

    text: str
    colour: str


# Its parts, which hold the model's own names as they are: `render` alone writes escapes.
Line = Sequence[str | Painted]


def render(inspection: Inspection, paint: Paint = lambda text, colour: text) -> str:
    """Return the report as lines; `paint` adds colour. No name of the model can add a line or a control character."""
    return "\n".join("".join(_rendered(part, paint) for part in line) for line in _lines(inspection))


def _rendered(part: str | Painted, paint: Paint) -> str:
    return paint(printable(part.text), part.colour) if isinstance(part, Painted) else printable(part)


def _lines(inspection: Inspection) -> Iterator[Line]:
    memory = inspection.memory_bytes
    yield [Painted(inspection.uri, "bold")]
    loaded = f", about {format_size(memory)} of memory when loaded" if memory is not None else ""
    yield [f"  {format_size(inspection.size_bytes)} in {len(inspection.files)} files{loaded}"]
    yield ["  " + ", ".join(f"{role} {format_size(size)}" for role, size in inspection.bytes_by_role.items())]
    for meta_graph in inspection.graph.meta_graphs if inspection.graph else ():
        yield []
        yield from _meta_graph_lines(meta_graph)
    if inspection.weights and inspection.weights.tensor_count:
        yield []
        yield from _variable_lines(inspection)
    yield []
    yield from _finding_lines(inspection)


def _meta_graph_lines(meta_graph: MetaGraph) -> Iterator[Line]:
    functions = meta_graph.functions.values()
    nodes = meta_graph.main.node_count + sum(body.node_count for body in functions)
    written = f"written by TensorFlow {meta_graph.tf_version}" if meta_graph.tf_version else "of unknown origin"
    tags = Painted(f"MetaGraph [{', '.join(meta_graph.tags)}]", "bold")
    yield [tags, f"  {nodes:,} nodes, {len(functions):,} functions, {written}"]
    for name, signature in serving_signatures(meta_graph).items():
        yield ["  ", Painted(name, "cyan"), f"  {signature.method_name}"]
        for arrow, infos in (("→", signature.inputs), ("←", signature.outputs)):
            for key, info in infos.items():
                yield [f"    {arrow} {key}  {shape_text(info)}"]


def _variable_lines(inspection: Inspection) -> Iterator[Line]:
    weights = inspection.weights
    assert weights is not None
    by_dtype = ", ".join(f"{dtype} {format_size(size)}" for dtype, size in weights.bytes_by_dtype.items())
    total = f"  {weights.tensor_count:,} tensors, {format_size(weights.size_bytes)} ({by_dtype})"
    yield [Painted("Variables", "bold"), total]
    tensors = [entry for entry in inspection.tensors if entry.key != OBJECT_GRAPH_KEY]
    for entry in sorted(tensors, key=lambda entry: -entry.size_bytes)[:LARGEST]:
        yield [f"  {format_size(entry.size_bytes):>10}  {entry.dtype} {list(entry.shape)}  {entry.key}"]
    if len(tensors) > LARGEST:
        yield [f"  the {LARGEST} largest of {len(tensors):,}; --json and --html show more"]


def _finding_lines(inspection: Inspection) -> Iterator[Line]:
    findings = list(inspection.findings)
    number = counts(findings)
    checked = "checksums compared" if inspection.verified else "checksums not compared (--verify)"
    if not findings:
        yield [Painted("Nothing found wrong", "green"), f", {checked}."]
        return
    summary = ", ".join(f"{count} {severity}" for severity, count in number.items() if count)
    yield [Painted("Findings", "bold"), f"  {summary}; {checked}"]
    for item in findings:
        yield ["  ", Painted(f"{item.severity:7}", COLOURS[item.severity]), f" {item.code}: {item.message}"]
        yield [f"          fix: {item.fix}"]
