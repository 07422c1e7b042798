"""A SavedModel again, with other names for clients: an alias layer that costs nothing, since only signatures change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef

from servegraph import storage
from servegraph.answers import warmup
from servegraph.answers.evidence import Evidence, Question
from servegraph.answers.original import ask_original
from servegraph.answers.samples import Samples
from servegraph.errors import ExportRefused
from servegraph.export_serving_graph.interface import Interface, WantedNames, interfaces
from servegraph.export_serving_graph.proof import Proof, require_asked, require_same_answers
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.rewriting.strip import strip
from servegraph.savedmodel.graph import Signature
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.serve.signatures import read_serving_graph

_TAG_NOTE = "Servers load the tags {serve} unless they are told otherwise (--saved_model_tags of TensorFlow Serving)."


def rename(model: Path, out: Path, wanted: WantedNames, samples: str | None = None) -> Proof:
    """Write the serving-only SavedModel `model` to the new directory `out` with the names that are wanted.

    Raises:
        InputError, ExportRefused: the names or methods do not fit, see `interface.interfaces`; or `NOT_UNDERSTOOD`,
            `ANSWERS_DIFFER`.
        ModelError, StorageError: the model whose names are to be kept cannot be read.
    """
    graph = read_saved_model(storage.open_dir(model))
    like = read_serving_graph(storage.open_dir(wanted.like)).signatures if wanted.like else {}
    found = interfaces(_public(graph.meta_graphs[0].signatures), wanted, _public(like))
    draft = draft_reader.read(model)
    if draft.untouched:
        raise ExportRefused(
            f"Its names cannot be changed, because {draft.untouched[0]}.",
            code="NOT_UNDERSTOOD",
            fix="Export it without new names.",
        )
    renamed = strip(draft.with_graphs(lambda one: _with_interfaces(one, found, wanted.tags)))
    stale = _stale_warmup(model, found)
    if stale:
        renamed = replace(renamed, files=tuple(file for file in renamed.files if file != warmup.WARMUP_FILE))
    draft_writer.write(renamed, out)
    evidence = ask_original(model, graph, draft.definitions, samples)
    require_asked(evidence)
    questions = tuple(_renamed_question(q, found[q.signature], wanted.tags) for q in evidence.questions)
    asked = Evidence(questions, evidence.silent)
    require_same_answers(out, asked, "Under its new names the model answers otherwise", "names must not change answers")
    tagged = [_TAG_NOTE] if wanted.tags and set(wanted.tags) != {"serve"} else []
    left = _left_out(graph.meta_graphs[0].signatures, found)
    return Proof(evidence.rows, 0.0, (*left, *tagged, *([stale] if stale else [])))


def _public(signatures: Mapping[str, Signature]) -> dict[str, Signature]:
    return {name: signature for name, signature in signatures.items() if not name.startswith("__saved_model_")}


def _with_interfaces(graph: ServingGraph, found: Mapping[str, Interface], tags: Sequence[str]) -> ServingGraph:
    signatures = {}
    for name, signature in graph.signatures.items():
        new = signatures[name] = SignatureDef(method_name=found[name].method_name)
        for target, source, names in (
            (new.inputs, signature.inputs, found[name].inputs),
            (new.outputs, signature.outputs, found[name].outputs),
        ):
            for key, before in names.items():
                target[key].CopyFrom(source[before])
        for key, before in found[name].inputs.items():
            if before in signature.defaults:
                new.defaults[key].CopyFrom(signature.defaults[before])
    original = MetaGraphDef()
    original.CopyFrom(graph.original)
    if tags:
        original.meta_info_def.tags[:] = tags
    return replace(graph, original=original, signatures=signatures)


def _renamed_question(question: Question, interface: Interface, tags: tuple[str, ...]) -> Question:
    def of(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        return {new: values[before] for new, before in names.items() if before in values}

    samples = question.samples
    renamed: Samples = replace(
        samples,
        inputs=of(samples.inputs, interface.inputs),
        more=tuple(of(part, interface.inputs) for part in samples.more),
    )
    answers = [of(answer, interface.outputs) for answer in question.answers]
    return replace(question, tags=tags or question.tags, samples=renamed, answers=answers)


def _left_out(before: Mapping[str, Signature], found: Mapping[str, Interface]) -> list[str]:
    gone = {name: sorted(set(before[name].outputs) - set(its.outputs.values())) for name, its in found.items()}
    return [f"Of {name} the outputs {', '.join(outputs)} are left out." for name, outputs in gone.items() if outputs]


def _stale_warmup(model: Path, found: Mapping[str, Interface]) -> str:
    changed = {name for name, its in found.items() if any(new != before for new, before in its.inputs.items())}
    asked = {request.signature_name for request in warmup.read(model)} & changed
    return (
        f"The warmup requests are left behind: the inputs of {', '.join(sorted(asked))} are renamed." if asked else ""
    )
