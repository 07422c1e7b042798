"""A second MetaGraph {serve, gpu} beside {serve}, in one saved_model.pb over the same variables and assets (R4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from servegraph import storage
from servegraph.answers import gate
from servegraph.answers.evidence import Evidence
from servegraph.answers.gate import Measured
from servegraph.answers.original import ask_original
from servegraph.answers.tolerance import Tolerance
from servegraph.errors import ExportRefused, InputError, ModelError
from servegraph.export_serving_graph.proof import Proof, refuse_baggage, require_asked
from servegraph.machines.sizes import format_size
from servegraph.rewriting import Precision, draft_reader, draft_writer
from servegraph.rewriting.draft import Draft, OnGpu
from servegraph.rewriting.gpu_graph import GPU_TAGS, for_gpu, placed_nodes
from servegraph.rewriting.strip import strip
from servegraph.rewriting.weights import loosen
from servegraph.savedmodel.graph import SERVING_TAG
from servegraph.savedmodel.graph_reader import read_saved_model

WORTH_SAYING_BYTES = 1_000_000


def add_gpu_graph(model: Path, out: Path, precision: Precision, samples: str | None = None) -> Proof:
    """Write the serving-only SavedModel `model` to the new directory `out`, with a MetaGraph for GPUs beside its own.

    The CPU stands in for the GPU when it is asked. In float32 its answers must be the same but for rounding; in a
    lower precision the tolerance of an optimization decides, where records are given.

    Raises:
        ExportRefused: nothing of it can be placed on a GPU (code `NOTHING_FOR_GPU`), the graph is not understood
            (`NOT_UNDERSTOOD`), or answers differ (`ANSWERS_DIFFER`, `PRECISION_TOO_LOW`).
        InputError: the graph to place is not tagged {serve} (code `WHICH_METAGRAPH`).
    """
    plain = draft_reader.read(model)
    (definition,) = plain.definitions
    if list(definition.meta_info_def.tags) != [SERVING_TAG]:
        raise InputError(
            f"The graph for GPUs is made of the one tagged serve, and this is {list(definition.meta_info_def.tags)}.",
            code="WHICH_METAGRAPH",
            fix="Export the MetaGraph {serve}.",
        )
    if plain.untouched:
        raise ExportRefused(
            f"No graph for GPUs can be made of it, because {plain.untouched[0]}.",
            code="NOT_UNDERSTOOD",
            fix="Export it without --gpu-graph.",
        )
    draft = _with_both(plain, precision)
    draft_writer.write(draft, out)
    refuse_baggage(out)
    evidence = ask_original(model, read_saved_model(storage.open_dir(model)), plain.definitions, samples)
    require_asked(evidence)
    _require_same(_measure(out, evidence, ("serve",)), evidence, ("serve",))
    measured = _measure(out, evidence, GPU_TAGS)
    if precision == "float32":
        _require_same(measured, evidence, GPU_TAGS)
    largest = max(one.everything.max_abs_diff for one in measured)
    return Proof(evidence.rows, largest, (*_judged(measured, evidence, precision), *_stored_twice(draft)))


def _with_both(plain: Draft, precision: Precision) -> Draft:
    """Return the draft with both graphs; large constants are variables then, of which one copy is enough."""
    shared = loosen(strip(plain))
    (graph,) = shared.serving_graphs
    on_gpu = for_gpu(graph, precision)
    if not placed_nodes(on_gpu):
        raise ExportRefused(
            "No operation of the model computes with floats on a GPU.",
            code="NOTHING_FOR_GPU",
            fix="Export it without --gpu-graph: a GPU would not be used.",
        )
    return replace(shared, on_gpu=OnGpu(precision, on_gpu.original))


def _measure(out: Path, evidence: Evidence, tags: tuple[str, ...]) -> list[Measured]:
    """Ask the MetaGraph of these tags. Made-up records of a network are often near ties: where there are real ones,
    only those count.
    """
    made_up = frozenset((tags, q.signature) for q in evidence.questions if q.samples.generated)
    asked = replace(evidence, questions=tuple(replace(q, tags=tags) for q in evidence.questions), spared=made_up)
    try:
        return gate.measure(out, asked, asked.loaders)
    except (ModelError, ValueError) as exc:
        raise _differ(tags, str(exc)) from exc


def _require_same(measured: list[Measured], evidence: Evidence, tags: tuple[str, ...]) -> None:
    if objection := gate.objection(measured, evidence, "rounding", Tolerance()):
        raise _differ(tags, objection)


def _differ(tags: tuple[str, ...], why: str) -> ExportRefused:
    return ExportRefused(
        f"The MetaGraph {{{', '.join(tags)}}} does not answer as the source does: {why}.",
        code="ANSWERS_DIFFER",
        fix="Export it without --gpu-graph, and report this model.",
    )


def _judged(measured: list[Measured], evidence: Evidence, precision: Precision) -> tuple[str, ...]:
    """Return what is to be known of the precision, as a note."""
    if precision == "float32":
        return ()
    if objection := gate.objection(measured, evidence, "tolerance", _tolerance(evidence)):
        raise ExportRefused(
            f"Computing in {precision} changes too much: {objection}.",
            code="PRECISION_TOO_LOW",
            fix="Take another precision: --gpu-graph float32.",
        )
    worst = min(measured, key=lambda one: one.agreement.agreement)
    of = "made-up records, which say nothing about accuracy" if evidence.generated else "records"
    return (
        f"In {precision} the MetaGraph for GPUs decides alike on {worst.agreement.agreement:.2%} of "
        f"{evidence.rows} {of}; numbers differ by up to {worst.everything.max_abs_diff:.2g}.",
    )


def _stored_twice(draft: Draft) -> tuple[str, ...]:
    """Say how large the constants are that functions hold, of which each MetaGraph has its own."""
    size = sum(
        node.ByteSize()
        for function in draft.serving_graphs[0].library.values()
        for node in function.node_def
        if node.op == "Const"
    )
    if size < WORTH_SAYING_BYTES:
        return ()
    return (f"{format_size(size)} of constants in functions are stored with each MetaGraph: make them variables.",)


def _tolerance(evidence: Evidence) -> Tolerance:
    """Made-up records of a network are often near ties: only real ones count."""
    return Tolerance(min_agreement=0.0) if evidence.generated else Tolerance()
