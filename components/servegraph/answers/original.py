"""Asks the original model: which records each signature gets, and what it answers through each loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from servegraph.answers import generated, metric, sample_lines, warmup
from servegraph.answers.ask import LOADERS, Loader, Servable
from servegraph.answers.child import in_child
from servegraph.answers.composites import asked_specs
from servegraph.answers.draws import same_draws
from servegraph.answers.encodings import encodings
from servegraph.answers.evidence import Evidence, Question
from servegraph.answers.generated import Try, longer, made, say_something, tell_apart
from servegraph.answers.made_up import Encoding
from servegraph.answers.samples import InputSpec, Samples, are_same, in_other_sizes
from servegraph.errors import DataError, InputError, ModelError
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE, MetaGraph, SavedModelGraph, Signature


def ask_original(
    path: Path,
    graph: SavedModelGraph,
    definitions: Sequence[MetaGraphDef],
    samples: str | None,
    label: str | None = None,
    steady: Mapping[tuple[str, ...], Mapping[str, str]] | None = None,
) -> Evidence:
    """Ask every signature of the model at `path`, through each loader.

    Each gets the samples if they fill its inputs, else its own warmup requests, else records that are made up from
    what the signature and the graph say of its inputs: in requests of several sizes, or where it refuses those, of the
    size that its outputs name, or of one record each, or of longer records. Answers without any value count as refused.
    `label` is `KEY` or `KEY=OUTPUT`: where samples hold the label. `steady` are the MetaGraphs, by their tags, whose
    answers do not depend on earlier requests; another one is loaded anew after a request in vain. They come with the
    signatures that compute the same as another, each with the name of that, and so of two one is asked alone. What an
    Estimator trains or evaluates with is not asked: it counts on from request to request, and reads what it counts at
    the same time.

    Raises:
        DataError: the samples fit no signature or cannot be read, a label is missing or belongs to no output.
        InputError: a label without samples.
    """
    if label and not samples:
        raise InputError("A label is named, and no samples that could hold it.", fix="Give --samples as well.")
    label_key, output = metric.label_and_output(label) if label else (None, None)
    real, misfits = _real_samples(path, graph, samples, label_key)
    if samples and misfits and not any(any(found.values()) for found in real):
        raise _closest(samples, graph, misfits)
    asked, silent = _to_ask(path, graph, definitions, real)
    questions: list[Question] = []
    for loader in LOADERS:
        try:
            answered, why = in_child(_ask_all, path, loader, asked, steady or {})
        except ModelError as crash:
            answered, why = [], {f"the {loader} loader": crash.message}
        questions += answered
        silent.update(why)
    found = Evidence(tuple(questions), silent)
    if label_key is None or not questions:
        return found
    scored = found.main
    return Evidence(found.questions, silent, metric.score(scored.answers, scored.samples.labels, output))


def _to_ask(
    path: Path,
    graph: SavedModelGraph,
    definitions: Sequence[MetaGraphDef],
    real: Sequence[Mapping[str, Samples | None]],
) -> tuple[list[tuple[tuple[str, ...], Mapping[str, Sequence[Try]]]], dict[str, str]]:
    """Return, for the tags of each MetaGraph, what each signature is tried with, and what is not asked and why."""
    asked: list[tuple[tuple[str, ...], Mapping[str, Sequence[Try]]]] = []
    silent: dict[str, str] = {}
    for meta_graph, definition, given in zip(graph.meta_graphs, definitions, real, strict=True):
        tries: dict[str, list[Try]] = {}
        for name, signature in _public(meta_graph):
            outputs = [tensor.shape for tensor in signature.outputs.values()]
            if mine := given[name]:
                tries[name] = [mine, *in_other_sizes([mine], outputs)]
            else:
                tries[name] = _made_up(asked_specs(signature), encodings(definition, name, path), outputs)
        if supervised := [name for name, signature in meta_graph.signatures.items() if signature.is_supervised]:
            silent[f"{', '.join(supervised)} of {list(meta_graph.tags)}"] = "what trains or evaluates is not served"
        if tries or not supervised:
            asked.append((tuple(meta_graph.tags), tries))
    return asked, silent


def _real_samples(
    path: Path, graph: SavedModelGraph, samples: str | None, label_key: str | None
) -> tuple[list[dict[str, Samples | None]], dict[str, DataError]]:
    """Return, for each MetaGraph, the samples or warmup requests of each signature, and by signature why none fits."""
    warm = () if samples else warmup.read(path)
    found: list[dict[str, Samples | None]] = []
    misfits: dict[str, DataError] = {}
    for meta_graph in graph.meta_graphs:
        found.append({})
        for name, signature in _public(meta_graph):
            specs = asked_specs(signature)
            try:
                given = sample_lines.read(samples, specs, label=label_key, signature=name) if samples else None
                found[-1][name] = given or warmup.samples(warm, name, specs)
            except DataError as misfit:
                misfits.setdefault(name, misfit)
                found[-1][name] = None
    return found, misfits


def _closest(samples: str, graph: SavedModelGraph, misfits: Mapping[str, DataError]) -> DataError:
    """Return why samples do not fit the signature that they are most likely meant for, with what the others take."""
    taken = {name: asked_specs(signature) for meta in reversed(graph.meta_graphs) for name, signature in _public(meta)}
    meant = max(
        misfits, key=lambda name: (sample_lines.closeness(samples, taken[name], name), name == DEFAULT_SIGNATURE)
    )
    why = misfits[meant]
    others = [f"{name!r} takes {list(specs)}" for name, specs in taken.items() if name != meant]
    if not others or all(misfit.message == why.message for misfit in misfits.values()):
        return why  # such as a line that is no JSON, whatever the signature
    return DataError(why.message, code=why.code, fix=f"{why.fix} Of the other signatures {', '.join(others)}.")


def _public(meta_graph: MetaGraph) -> list[tuple[str, Signature]]:
    named = [(name, s) for name, s in meta_graph.signatures.items() if not name.startswith("__saved_model")]
    return [(name, signature) for name, signature in named if not signature.is_supervised]


def _made_up(
    specs: Mapping[str, InputSpec], found: Mapping[str, Encoding], outputs: Sequence[tuple[int | None, ...] | None]
) -> list[Try]:
    """Return what is made up for a signature, in the order in which it is tried; none where a dtype has no values."""
    records = generated.tries(specs, found)
    return [*records, *in_other_sizes(records, outputs), *(longer(specs, found) if records else ())]


def _ask_all(
    path: Path,
    loader: Loader,
    asked: Sequence[tuple[tuple[str, ...], Mapping[str, Sequence[Try]]]],
    steady: Mapping[tuple[str, ...], Mapping[str, str]],
) -> tuple[list[Question], dict[str, str]]:
    """Runs in a child: put the records to each MetaGraph; of several, the first that a signature answers."""
    questions: list[Question] = []
    silent: dict[str, str] = {}
    for tags, records in asked:
        try:
            found, why, is_marred = _ask_meta_graph(path, loader, tags, records, steady.get(tags, {}))
            # Once more from its start, as the rungs will be asked: it may count calls, or keep a state.
            if is_marred and tags not in steady:
                answered = {question.signature: [question.samples] for question in found}
                found, again, _ = _ask_meta_graph(path, loader, tags, answered)
                why |= again
            questions += found
            silent |= why
        except ModelError as exc:
            silent[f"{list(tags)} through the {loader} loader"] = exc.message
    return questions, silent


def _ask_meta_graph(
    path: Path,
    loader: Loader,
    tags: tuple[str, ...],
    records: Mapping[str, Sequence[Try]],
    same: Mapping[str, str] | None = None,
) -> tuple[list[Question], dict[str, str], bool]:
    """Ask each signature; the last value is whether one was asked in vain, which may have changed the model's state."""
    questions: list[Question] = []
    silent: dict[str, str] = {}
    is_marred = False
    with same_draws(), Servable(path, tags=tags, loader=loader) as servable:
        for name, tries in records.items():
            if known := _asked_before(servable, name, records, same or {}, questions):
                questions.append(known)
                continue
            what = f"signature {name!r} of {list(tags)} through the {loader} loader"
            silent[what] = "no request can be made up for it"
            found: Question | None = None
            for records_to_try in tries:
                if found and not (isinstance(records_to_try, Samples) and records_to_try.is_batched):
                    break  # nothing told records apart; neither will their length, nor how many come together
                samples = made(records_to_try)
                try:
                    answers = [servable(name, request) for request in samples.requests()]
                except ModelError as exc:
                    silent[what] = exc.message
                    is_marred = True
                    continue
                if any(answers) and not say_something(answers):
                    silent[what] = "no answer holds a value, or a finite number"
                    is_marred = True
                    continue
                is_better = not samples.generated or tell_apart(answers)
                if is_better or not found:
                    found = Question(tags, loader, name, samples, answers)
                if is_better:
                    break
                is_marred = True
            if found:
                del silent[what]
                questions.append(found)
    return questions, silent, is_marred and bool(questions)


def _asked_before(
    servable: Servable,
    name: str,
    records: Mapping[str, Sequence[Try]],
    same: Mapping[str, str],
    questions: Sequence[Question],
) -> Question | None:
    """Return what a signature answers by one that computes the same and was asked the same; None if there is none.

    That they compute the same was read off the graph, which is all that a session has. `tf.saved_model.load` has
    functions of its own: through it the first request is put to both, and where one bit differs, so are all others.
    """
    twin = next((q for q in questions if same.get(q.signature, q.signature) == same.get(name, name)), None)
    tries = records[name]
    if twin is None or not tries or not made(tries[0]).equals(made(records[twin.signature][0])):
        return None
    if twin.loader == "v2":
        try:
            answer = servable(name, next(twin.samples.requests()))
        except ModelError:
            return None
        if not are_same(answer, twin.answers[0]):
            return None
    return replace(twin, signature=name)
