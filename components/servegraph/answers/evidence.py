"""What the original is asked, and what it answered: the evidence that every rung is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from servegraph.answers.ask import Loader
from servegraph.answers.decisions import Rule, rule_of
from servegraph.answers.generated import holds_value, tell_apart
from servegraph.answers.metric import Metric
from servegraph.answers.samples import Samples, are_same
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE

_OTHER_CLASSES = "If it decides between classes, give samples of other classes too."

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
