"""Optimize a SavedModel: climb the ladder, gate every rung, keep the least lossy result that fits the budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from servegraph import storage
from servegraph.answers.child import beside, warm_up
from servegraph.answers.evidence import Evidence
from servegraph.answers.golden import Recorded
from servegraph.answers.original import ask_original
from servegraph.errors import InputError
from servegraph.inspect_graph.inspect import inspect_directory
from servegraph.interrupt import terminated_as_interrupted
from servegraph.optimize import climb
from servegraph.optimize.equal_signatures import steady_signatures
from servegraph.optimize.free_memory import free_bytes, needed_bytes, require_room
from servegraph.optimize.goal import Goal
from servegraph.optimize.places import require_places
from servegraph.optimize.recording import record, varying_outputs
from servegraph.optimize.result import Optimized, Step
from servegraph.optimize.rungs import RUNGS
from servegraph.optimize.spared import spared
from servegraph.optimize.terms import Terms, directory_bytes, rungs_named
from servegraph.progress import Progress
from servegraph.rewriting import draft_reader
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.weights import unmatched
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.layout import GOLDEN_FILE, content_digest
from servegraph.storage.local import answering
from servegraph.storage.staging import work_directory
from servegraph.suggestion import did_you_mean


def optimize(model: Path, out: Path, goal: Goal, samples: str | None = None) -> Optimized:
    """Write the smallest lossless form of `model` to `out`, then lossy ones only as far as the budget asks.

    `out` appears when it is complete. It is written even where the budget is not met: it is the best that was reached.
    SIGTERM ends it as Ctrl-C does: nothing of it stays.

    Raises:
        InputError: an unknown rung, a tolerance outside 0 … 1, or `out` exists already or is in `model`.
        ModelError: `model` is no SavedModel, a damaged one, or one that this machine cannot load (code `NO_MEMORY`).
        DataError: the samples fit no signature.
        StorageError: `out` cannot be written, or there are no samples.
    """
    with terminated_as_interrupted():
        return _optimize(model, out, goal, samples)


def _optimize(model: Path, out: Path, goal: Goal, samples: str | None) -> Optimized:
    _require_rungs(goal)
    require_places(model, out, samples)
    warm_up()
    original = draft_reader.read(model, keep=goal.keep)
    require_room(needed_bytes(original), free_bytes())
    terms = _terms(goal)
    with work_directory(out) as workspace, Progress("optimize", total=len(terms.rungs)) as progress:
        progress.advance("asking the original", steps=0)
        done = climb.start(original, terms, workspace, progress)
        with beside(_evidence, model, original, goal, samples) as coming:
            done.foresee(coming.done)
            evidence = coming.result()
        before = directory_bytes(model)
        if evidence.questions:
            done.run(evidence)
        else:
            reason = "no evidence, see notes"
            done.steps = [Step(rung.name, rung.what, False, before, reason=reason) for rung in done.terms.rungs]
        best = done.best.path if done.best.path != model else climb.unchanged(original, workspace)
        varying = varying_outputs(done.best.draft, best, evidence)
        recorded = record(done.best, best, evidence, goal.budget_bytes, varying)
        golden_bytes = (best / GOLDEN_FILE).stat().st_size if recorded.lines else 0
        after, digest = directory_bytes(best), content_digest(storage.open_dir(best))
        with answering("write", out):
            if out.exists():
                out.rmdir()
            best.rename(out)
    return Optimized(
        before_bytes=before,
        after_bytes=after,
        budget_bytes=goal.budget_bytes,
        steps=tuple(done.steps),
        sample_rows=evidence.rows if evidence.questions else 0,
        samples_generated=evidence.generated,
        golden_requests=recorded.lines,
        digest=digest,
        notes=tuple(_notes(original, evidence, varying, recorded)),
        metric_name=evidence.metric.name if evidence.metric else None,
        metric_before=evidence.metric.value if evidence.metric else None,
        metric_after=next((s.metric for s in reversed(done.steps) if s.kept and s.metric is not None), None),
        golden_bytes=golden_bytes,
    )


def _terms(goal: Goal) -> Terms:
    names = goal.rungs or tuple(rung.name for rung in RUNGS if rung.is_default)
    return Terms(
        budget_bytes=goal.budget_bytes,
        tolerance=goal.tolerance,
        rungs=rungs_named(names),
        climbs_all=bool(goal.rungs),
        min_count=goal.min_count,
    )


def _require_rungs(goal: Goal) -> None:
    names = [rung.name for rung in RUNGS]
    unknown = sorted(set(goal.rungs) - {*names})
    if unknown:
        meant = "".join(did_you_mean(name, names) for name in unknown)
        raise InputError(
            f"There is no rung {', '.join(unknown)}.",
            code="UNKNOWN_RUNG",
            fix=f"{meant}The rungs are {', '.join(names)}.",
        )


def _evidence(model: Path, original: Draft, goal: Goal, samples: str | None) -> Evidence:
    """Ask the original; where that fails, it must at least be undamaged."""
    steady = steady_signatures(original.serving_graphs)
    graph = read_saved_model(storage.open_dir(model))
    evidence = ask_original(model, graph, original.definitions, samples, goal.label, steady)
    if original.on_gpu and original.on_gpu.precision != "float32":
        evidence = replace(evidence, coarse=tuple(original.on_gpu.definition.meta_info_def.tags))
    if not evidence.questions:
        inspect_directory(storage.open_dir(model), verify=True).require_undamaged()
    return replace(evidence, spared=spared(original, evidence))


def _notes(original: Draft, evidence: Evidence, varying: set[str], recorded: Recorded) -> Iterator[str]:
    """Yield what the report says beside the steps."""
    for number, why in original.untouched.items():
        yield f"MetaGraph {number} is left as it is, because {why}."
    if not evidence.questions:
        yield "The graph is left as it is, because the original could not be asked."
    for pattern in unmatched(original):
        yield f"Nothing is kept by the name {pattern!r}: no weight has it."
    yield from evidence.doubts
    yield from evidence.weaknesses
    if varying:
        yield f"Answered otherwise from call to call, and not in the golden requests: {', '.join(sorted(varying))}."
    if recorded.not_finite:
        yield f"NaN or infinite, and there not in the golden requests: {', '.join(recorded.not_finite)}."
    if recorded.in_parts:
        yield f"Ragged or sparse, and not in the golden requests: {', '.join(recorded.in_parts)}."
    if recorded.why_none:
        yield f"There are no golden requests for a deploy to compare: {recorded.why_none}."
    if recorded.lines and recorded.crowded_out:
        of_all = recorded.lines + recorded.crowded_out
        yield f"The budget leaves room for {recorded.lines} of {of_all} golden requests."
    if evidence.questions and evidence.generated:
        yield "The samples were made up from signature and graph: the agreement says nothing about accuracy."
