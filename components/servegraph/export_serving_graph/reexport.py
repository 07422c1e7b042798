"""A SavedModel again, with what its signatures need and nothing else, and the proof that its answers stayed.

It is taken apart as a graph and never run for that, so that models which today's Python API cannot load (a Keras 2
model with its optimizer, `add_slot`) are exported all the same. What it computes is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from servegraph import storage
from servegraph.answers import gate, warmup
from servegraph.answers.ask import LOADERS, Loader
from servegraph.answers.evidence import Evidence
from servegraph.answers.original import ask_original
from servegraph.answers.tolerance import Tolerance
from servegraph.errors import DataError, ExportRefused, InputError, ModelError
from servegraph.export_serving_graph.proof import Proof, refuse_baggage, require_asked, require_same_answers
from servegraph.export_serving_graph.signature_choice import Wanted, choose
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.rewriting.strip import strip
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE, SUPERVISED, SavedModelGraph
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.ops import has_lost_its_kernel

_INTERNAL = "__saved_model_"


def public_signatures(meta_graph: MetaGraphDef) -> list[str]:
    """Return the names of the signatures that clients can call."""
    return sorted(name for name, s in meta_graph.signature_def.items() if s.outputs and not name.startswith(_INTERNAL))


def serving_only(model: Path, out: Path, wanted: Wanted, samples: str | None = None) -> Proof:
    """Write the serving-only form of the SavedModel `model` to the new directory `out`, and prove it.

    Raises:
        InputError: it is not clear which MetaGraph (`WHICH_METAGRAPH`) or signature is wanted (`NO_SUCH_SIGNATURE`).
        ModelError: the model is damaged.
        ExportRefused: `TRAINING_BAGGAGE`, `NO_SIGNATURE`, `ANSWERS_DIFFER`, `NOT_PROVEN`, `LOST_KERNEL`.
    """
    whole = draft_reader.read(model)
    draft = _chosen_graph(whole, wanted.tags, str(model))
    chosen = choose(public_signatures(draft.definitions[0]), wanted.signatures, str(model))
    if not chosen:
        raise ExportRefused(
            f"{model} has no signature, so nobody could call it.",
            code="NO_SIGNATURE",
            fix="Save it with signatures, or name a function of it: --signature serving_default=NAME.",
        )
    _refuse_supervised(draft.definitions[0], chosen)
    if draft.untouched:
        raise ExportRefused(
            f"What serving needs of {model} cannot be told apart, because {draft.untouched[0]}.",
            code="NOT_UNDERSTOOD",
            fix="Build the model in Python and give file.py:function that returns it; of one that servegraph optimize "
            "stored in a smaller form, export the original.",
        )
    renamed = draft.with_graphs(lambda graph: _with_signatures(graph, chosen))
    stripped = strip(renamed)
    if stale := _stale_warmup(model, chosen):
        stripped = replace(stripped, files=tuple(f for f in stripped.files if f != warmup.WARMUP_FILE))
    draft_writer.write(stripped, out)
    refuse_baggage(out)
    evidence = _ask(model, draft.definitions, chosen, samples)
    if not evidence.questions and (lost := _without_kernel(stripped)):
        raise ExportRefused(
            f"TensorFlow {tf.__version__} cannot run {', '.join(lost)} any more: it has no kernel for it.",
            code="LOST_KERNEL",
            fix="Serve it with a TensorFlow of the time that saved it, or train a model of another kind.",
        )
    return _compare(out, evidence, [note for note in (stale, "" if wanted.signatures else _nameless(chosen)) if note])


def _refuse_supervised(meta_graph: MetaGraphDef, chosen: Mapping[str, str]) -> None:
    """Raise `ExportRefused` (`TRAINING_BAGGAGE`) for a signature that an Estimator trains or evaluates with.

    It takes labels, and an evaluation counts on from request to request: such answers cannot even be compared.
    """
    methods = {name: meta_graph.signature_def[name].method_name for name in chosen.values()}
    if supervised := {name: method for name, method in methods.items() if method.startswith(SUPERVISED)}:
        raise ExportRefused(
            f"What was chosen is to train or to evaluate: {', '.join(f'{n} ({m})' for n, m in supervised.items())}.",
            code="TRAINING_BAGGAGE",
            fix="Leave out --tags, so that the MetaGraph {serve} is taken, or name another signature with --signature.",
        )


def _without_kernel(draft: Draft) -> list[str]:
    """Return the operations that TensorFlow knows and cannot run any more."""
    bodies = [b for g in draft.serving_graphs for b in (g.nodes.values(), *(f.node_def for f in g.library.values()))]
    return sorted({node.op for body in bodies for node in body if has_lost_its_kernel(node.op)})


def _chosen_graph(draft: Draft, tags: Sequence[str], source: str) -> Draft:
    """Return the draft with the one MetaGraph that is wanted: {serve} unless its tags are named."""
    found = [tuple(graph.meta_info_def.tags) for graph in draft.definitions]
    fitting = [number for number, its in enumerate(found) if set(its) == set(tags or ("serve",))]
    if not fitting and not tags and len(found) == 1:
        fitting = [0]
    if len(fitting) != 1:
        raise InputError(
            f"{source} has the MetaGraphs {', '.join(str(list(its)) for its in found)}.",
            code="WHICH_METAGRAPH",
            fix="Say which: --tags serve,gpu.",
        )
    return draft.only(fitting[0])


def _with_signatures(graph: ServingGraph, chosen: Mapping[str, str]) -> ServingGraph:
    original = MetaGraphDef()
    original.CopyFrom(graph.original)
    if not list(original.meta_info_def.tags):
        original.meta_info_def.tags.append("serve")
    return replace(graph, original=original, signatures={new: graph.signatures[old] for new, old in chosen.items()})


def _stale_warmup(model: Path, chosen: Mapping[str, str]) -> str:
    """Say why warmup requests are left behind: TensorFlow Serving does not load a model whose requests fail."""
    try:
        unknown = {request.signature_name for request in warmup.read(model)} - set(chosen)
    except DataError as exc:
        return f"The warmup requests are left behind: {exc.message}"
    if unknown:
        return f"The warmup requests are left behind: they ask for {', '.join(sorted(unknown))}."
    return ""


def _ask(model: Path, definitions: Sequence[MetaGraphDef], chosen: Mapping[str, str], samples: str | None) -> Evidence:
    """Ask the source for what was chosen, under the new names."""
    graph = read_saved_model(storage.open_dir(model))
    tags = tuple(definitions[0].meta_info_def.tags)
    meta_graphs = [
        meta._replace(signatures={old: meta.signatures[old] for old in dict.fromkeys(chosen.values())})
        for meta in graph.meta_graphs
        if tuple(meta.tags) == tags
    ]
    asked = ask_original(model, SavedModelGraph(*graph)._replace(meta_graphs=tuple(meta_graphs)), definitions, samples)
    questions = [
        replace(question, signature=new, tags=tags or ("serve",))
        for new, old in chosen.items()
        for question in asked.questions
        if question.signature == old
    ]
    return Evidence(tuple(questions), asked.silent)


def _nameless(chosen: Mapping[str, str]) -> str:
    """Say that requests have to name a signature, as to a canned Estimator that TensorFlow exported for JSON."""
    if DEFAULT_SIGNATURE in chosen:
        return ""
    main = "predict" if "predict" in chosen else next(iter(chosen))
    return (
        f"No signature is called {DEFAULT_SIGNATURE}, so every request has to name one: {', '.join(chosen)}. "
        f"With --signature {DEFAULT_SIGNATURE}={main} that one need not be named."
    )


def _compare(out: Path, evidence: Evidence, further: Sequence[str]) -> Proof:
    notes = evidence.doubts
    require_asked(evidence)
    measured = require_same_answers(
        out, evidence, "The exported model does not answer as the source does", "an export must not change its answers"
    )
    largest = max(one.everything.max_abs_diff for one in measured)
    notes += [_through(out, evidence, loader) for loader in LOADERS if loader not in evidence.loaders]
    return Proof(evidence.rows, largest, (*notes, *further))


def _through(out: Path, evidence: Evidence, loader: Loader) -> str:
    """Say whether the result can be asked through a loader that does not take the source."""
    first = evidence.loaders[0]
    asked = tuple(replace(question, loader=loader) for question in evidence.questions if question.loader == first)
    again = replace(evidence, questions=asked)
    try:
        objection = gate.objection(gate.measure(out, again, [loader]), again, "rounding", Tolerance())
    except (ModelError, ValueError) as exc:
        objection = exc.message if isinstance(exc, ModelError) else str(exc)
    if objection:
        return f"The {loader} loader does not take the result either: {objection}"
    return f"The {loader} loader, which does not take the source, takes the result, with the same answers."
