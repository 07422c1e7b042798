"""What the original is asked, and what it answered: the evidence that every rung is held against."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from servegraph.answers import generated, metric, sample_lines, warmup
from servegraph.answers.ask import Loader, Servable
from servegraph.answers.child import in_child
from servegraph.answers.decisions import Rule, rule_of
from servegraph.answers.draws import same_draws
from servegraph.answers.encodings import encodings
from servegraph.answers.generated import Try, holds_value, longer, made, say_something, tell_apart
from servegraph.answers.made_up import Encoding
from servegraph.answers.metric import Metric
from servegraph.answers.samples import InputSpec, Samples, are_same, in_other_sizes
from servegraph.errors import DataError, InputError, ModelError
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE, MetaGraph, SavedModelGraph, Signature

_OTHER_CLASSES = "If it decides between classes, give samples of other classes too."
LOADERS: tuple[Loader, ...] = ("session", "v2")  # TF Serving's way first

Answers = list[dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Question:
    """Samples for one signature through one loader, and what the original answered to each request."""

    tags: tuple[str, ...]
    loader: Loader
    signature: str
    samples: Samples
    answers: Answers

    def is_answered_as(self, other: Question) -> bool:
        """Whether both put the same requests to one MetaGraph, and got the same bits."""
        is_same = self.tags == other.tags and self.loader == other.loader and self.samples.equals(other.samples)
        return is_same and all(map(are_same, self.answers, other.answers))

    def asks_same(self, other: Question, *, any_tags: bool = False) -> bool:
        """Whether both put the same requests to the same signature and got the same outputs, whatever the loader."""
        same = self.signature == other.signature and (any_tags or self.tags == other.tags)
        outputs = [[answer.keys() for answer in question.answers] for question in (self, other)]
        return same and outputs[0] == outputs[1] and self.samples.equals(other.samples)

    @property
    def rows(self) -> list[int]:
        """The number of records in each request."""
        if not self.samples.is_batched:
            return [1] * len(self.answers)
        return [len(next(iter(request.values()))) if request else 1 for request in self.samples.requests()]


@dataclass(frozen=True)
class Evidence:
    """Everything the original was asked; `silent` says what could not be asked, and why.

    `metric` is how well its answers match the labels, None where there are none. `coarse` are the tags of a MetaGraph
    that computes in half precision, so that its answers move with every change of rounding. `spared` are signatures,
    by their tags and name, of which made-up records do not count, because real ones ask the same weights elsewhere.
    """

    questions: tuple[Question, ...]
    silent: Mapping[str, str]
    metric: Metric | None = None
    coarse: tuple[str, ...] = ()
    spared: frozenset[tuple[tuple[str, ...], str]] = frozenset()

    def counts(self, question: Question) -> bool:
        """Whether the tolerance is for its answers too."""
        return not question.samples.generated or (question.tags, question.signature) not in self.spared

    @property
    def loaders(self) -> tuple[Loader, ...]:
        """The loaders that take the original, TF Serving's first."""
        return tuple(dict.fromkeys(question.loader for question in self.questions))

    @property
    def generated(self) -> bool:
        """Whether all samples were made up, so that agreement says nothing about accuracy."""
        return all(question.samples.generated for question in self.questions)

    @property
    def rows(self) -> int:
        """The records that count, once whoever was asked them: made-up ones only where there are no others."""
        asked = [q.samples for q in self.questions if q.loader == self.questions[0].loader]
        different: list[Samples] = []
        for samples in asked:
            if samples.generated == self.generated and not any(samples.equals(other) for other in different):
                different.append(samples)
        return sum(samples.rows for samples in different)

    @property
    def doubts(self) -> list[str]:
        """What it does not prove: what was not asked, and answers that agree whatever happens."""
        found = [f"Not asked: {what}: {why}" for what, why in self.silent.items()]
        if unseen := self._unseen():
            found.append(f"No answer held a value, or a finite number, so nothing is proven of: {', '.join(unseen)}.")
        if self.questions and not tell_apart(self.main.answers):
            found.append("All records were answered alike, so that this proves little: give --samples that differ.")
        return found

    @property
    def weaknesses(self) -> list[str]:
        """What agreement with it leaves open, where real records were asked."""
        if self.generated:
            return []
        found = []
        made_up = {q.signature for q in self.questions if q.samples.generated and self.counts(q)}
        if made_up:
            found.append(f"Asked with made-up records only: {', '.join(sorted(made_up))}.")
        rules = self._rules()
        if silent := {name for name, rule in rules if not rule.is_telling}:
            found.append(
                f"Agreement says nothing of {', '.join(sorted(silent))}, as of embeddings and boxes, and of amounts or "
                "what is always decided alike of fewer than ten records: give more of them, or --max-abs-diff. "
                f"{_OTHER_CLASSES}"
            )
        if alike := {name for name, rule in rules if rule.is_alike and rule.is_telling}:
            names = ", ".join(sorted(alike))
            found.append(f"Compared as amounts, since all records decide alike: {names}. {_OTHER_CLASSES}")
        return found

    def _rules(self) -> list[tuple[str, Rule]]:
        """Return by what the outputs are compared that real records were asked for."""
        real = [q for q in self.questions if q.loader == self.main.loader and not q.samples.generated]
        return [
            (name, rule_of(name, [answer[name] for answer in q.answers], q.rows, judges_amounts=True))
            for q in real
            for name in sorted(set.intersection(*(set(answer) for answer in q.answers)))
        ]

    def _unseen(self) -> list[str]:
        """Return the outputs of which no answer holds a value, as a detector's that finds nothing."""
        named: set[tuple[tuple[str, ...], str, str]] = set()
        seen: set[tuple[tuple[str, ...], str, str]] = set()
        for question in self.questions:
            for answer in question.answers:
                keys = {name: (question.tags, question.signature, name) for name in answer}
                named.update(keys.values())
                seen.update(key for name, key in keys.items() if holds_value(answer[name]))
        return sorted({name for _, _, name in named - seen})

    @property
    def main(self) -> Question:
        """The question that stands for the model: one with real samples, and `serving_default` if it has one."""
        return min(self.questions, key=lambda q: (q.samples.generated, q.signature != DEFAULT_SIGNATURE))


def ask_original(
    path: Path,
    graph: SavedModelGraph,
    definitions: Sequence[MetaGraphDef],
    samples: str | None,
    label: str | None = None,
    steady: Collection[tuple[str, ...]] = (),
) -> Evidence:
    """Ask every signature of the model at `path`, through each loader.

    Each gets the samples if they fill its inputs, else its own warmup requests, else records that are made up from
    what the signature and the graph say of its inputs: in requests of several sizes, or where it refuses those, of the
    size that its outputs name, or of one record each, or of longer records. Answers without any value count as refused.
    `label` is `KEY` or `KEY=OUTPUT`: where samples hold the label. `steady` are the tags of MetaGraphs whose answers do
    not depend on earlier requests; another one is loaded anew after a request in vain.

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
    asked = []
    for meta_graph, definition, given in zip(graph.meta_graphs, definitions, real, strict=True):
        tries: dict[str, list[Try]] = {}
        for name, signature in _public(meta_graph):
            outputs = [tensor.shape for tensor in signature.outputs.values()]
            if mine := given[name]:
                tries[name] = [mine, *in_other_sizes([mine], outputs)]
            else:
                tries[name] = _made_up(_specs(signature), encodings(definition, name, path), outputs)
        asked.append((tuple(meta_graph.tags), tries))
    questions: list[Question] = []
    silent: dict[str, str] = {}
    for loader in LOADERS:
        try:
            answered, why = in_child(_ask_all, path, loader, asked, steady)
        except ModelError as crash:
            answered, why = [], {f"the {loader} loader": crash.message}
        questions += answered
        silent.update(why)
    found = Evidence(tuple(questions), silent)
    if label_key is None or not questions:
        return found
    scored = found.main
    return Evidence(found.questions, silent, metric.score(scored.answers, scored.samples.labels, output))


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
            specs = _specs(signature)
            try:
                given = sample_lines.read(samples, specs, label=label_key, signature=name) if samples else None
                found[-1][name] = given or warmup.samples(warm, name, specs)
            except DataError as misfit:
                misfits.setdefault(name, misfit)
                found[-1][name] = None
    return found, misfits


def _closest(samples: str, graph: SavedModelGraph, misfits: Mapping[str, DataError]) -> DataError:
    """Return why samples do not fit the signature that they are most likely meant for, with what the others take."""
    taken = {name: _specs(signature) for meta in reversed(graph.meta_graphs) for name, signature in _public(meta)}
    meant = max(
        misfits, key=lambda name: (sample_lines.closeness(samples, taken[name], name), name == DEFAULT_SIGNATURE)
    )
    why = misfits[meant]
    others = [f"{name!r} takes {list(specs)}" for name, specs in taken.items() if name != meant]
    if not others or all(misfit.message == why.message for misfit in misfits.values()):
        return why  # such as a line that is no JSON, whatever the signature
    return DataError(why.message, code=why.code, fix=f"{why.fix} Of the other signatures {', '.join(others)}.")


def _specs(signature: Signature) -> dict[str, InputSpec]:
    return {key: InputSpec(tensor.dtype, tensor.shape) for key, tensor in signature.inputs.items()}


def _public(meta_graph: MetaGraph) -> list[tuple[str, Signature]]:
    return [(name, s) for name, s in meta_graph.signatures.items() if not name.startswith("__saved_model")]


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
    steady: Collection[tuple[str, ...]],
) -> tuple[list[Question], dict[str, str]]:
    """Runs in a child: put the records to each MetaGraph; of several, the first that a signature answers."""
    questions: list[Question] = []
    silent: dict[str, str] = {}
    for tags, records in asked:
        try:
            found, why, is_marred = _ask_meta_graph(path, loader, tags, records)
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
    path: Path, loader: Loader, tags: tuple[str, ...], records: Mapping[str, Sequence[Try]]
) -> tuple[list[Question], dict[str, str], bool]:
    """Ask each signature; the last value is whether one was asked in vain, which may have changed the model's state."""
    questions: list[Question] = []
    silent: dict[str, str] = {}
    is_marred = False
    with same_draws(), Servable(path, tags=tags, loader=loader) as servable:
        for name, tries in records.items():
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
