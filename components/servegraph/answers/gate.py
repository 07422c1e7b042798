"""The gate: does a changed model still answer as the original did, through each loader that takes the original?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from servegraph.answers import metric
from servegraph.answers.ask import Loader, Servable
from servegraph.answers.child import in_child
from servegraph.answers.compare import Agreement, compare, together
from servegraph.answers.draws import same_draws
from servegraph.answers.evidence import Answers, Evidence, Question
from servegraph.answers.metric import Metric
from servegraph.answers.samples import Samples
from servegraph.answers.tolerance import Tolerance

ROUNDING = 1e-5  # of the largest value of the output: float32 has 24 bits, a deep net loses a few
FOLDING = 1e-3  # folded weights round elsewhere, in every layer of a deep net
COARSE = 0.1  # bfloat16 has 8 bits, and a deep net loses a few

# What a rung may do to the answers: nothing at all, round differently, or what the user's tolerance allows.
Loss = Literal["none", "rounding", "tolerance"]
Limit = Literal["min_agreement", "max_abs_diff", "max_metric_drop"]  # of the tolerance


@dataclass(frozen=True)
class Measured:
    """What one loader says of a changed model.

    `everything` is the agreement on all questions, `agreement` on those that count for the tolerance, see `Evidence`.
    Neither has the answers of a MetaGraph in half precision: `coarse` has those.
    `given` has every question with what the changed model answered.
    """

    loader: Loader
    everything: Agreement
    agreement: Agreement
    metric: Metric | None
    coarse: Agreement | None = None
    given: Sequence[tuple[Question, Answers]] = ()


def measure(path: Path, evidence: Evidence, loaders: Sequence[Loader]) -> list[Measured]:
    """Ask the model at `path` the same questions and return, per loader, how far its answers are from the original's.

    Raises:
        ModelError: it cannot be loaded or asked.
        ValueError: its outputs have other names or ranks.
    """
    found = []
    for loader in loaders:
        asked = [question for question in evidence.questions if question.loader == loader]
        records = [(question.tags, question.signature, question.samples) for question in asked]
        have = in_child(_ask_again, path, records, _first_alike(asked), loader)
        each = [closest(evidence, q, answers) for q, answers in zip(asked, have, strict=True)]
        pairs = list(zip(each, asked, strict=True))
        coarse = [one for one, question in pairs if question.tags == evidence.coarse]
        each = [one for one, question in pairs if question.tags != evidence.coarse]
        counted = [one for one, q in pairs if q.tags != evidence.coarse and evidence.counts(q)]
        after = None
        if evidence.metric is not None and evidence.main in asked:
            answers = have[asked.index(evidence.main)]
            after = metric.score(answers, evidence.main.samples.labels, evidence.metric.output)
        rough = together(coarse) if coarse else None
        given = tuple(zip(asked, have, strict=True))
        found.append(Measured(loader, together(each), together(counted or each), after, rough, given))
    return found


def objection(found: Sequence[Measured], evidence: Evidence, loss: Loss, tolerance: Tolerance) -> str:
    """Return why a rung that was measured so must be undone, empty if it may stay."""
    for one in found:
        if reason := _objection(one, evidence, loss, tolerance):
            return f"{reason} through the {one.loader} loader"
    return ""


def _objection(measured: Measured, evidence: Evidence, loss: Loss, tolerance: Tolerance) -> str:
    """A rung without loss keeps every bit in a session."""
    everything, coarse = measured.everything, measured.coarse
    if everything.new_non_finite:
        return f"{everything.new_non_finite} answers became NaN or infinite"
    if coarse and (coarse.new_non_finite or coarse.max_relative_diff > COARSE):
        return f"an answer in half precision changed by {coarse.max_abs_diff:g}"
    if coarse and not evidence.generated and coarse.agreement < tolerance.min_agreement:
        return f"agreement in half precision {coarse.agreement:.4f} is below {tolerance.min_agreement:g}"
    if loss == "none" and measured.loader == "session" and not everything.identical:
        return f"a lossless rung changed an answer by {everything.max_abs_diff:g}"
    allowed = {"none": ROUNDING, "rounding": FOLDING, "tolerance": None}[loss]
    decides = [output.agreement for output in everything.outputs if output.decision != "amount"]
    if allowed is not None and (min(decides, default=1.0) < 1 or everything.max_relative_diff > allowed):
        return f"an answer changed by {everything.max_abs_diff:g}, more than by rounding,"
    return next((reason for _, reason in _broken(measured, evidence, tolerance)), "")


def broken_limits(found: Sequence[Measured], evidence: Evidence, tolerance: Tolerance) -> tuple[Limit, ...]:
    """Return which limits of the tolerance a rung that was measured so does not keep."""
    return tuple(dict.fromkeys(limit for one in found for limit, _ in _broken(one, evidence, tolerance)))


def _broken(measured: Measured, evidence: Evidence, tolerance: Tolerance) -> Iterator[tuple[Limit, str]]:
    """Yield the limits of the tolerance that are not kept, and by how much."""
    counted = measured.agreement
    if counted.agreement < tolerance.min_agreement:
        yield "min_agreement", f"agreement {counted.agreement:.4f} is below {tolerance.min_agreement:g}"
    if tolerance.max_abs_diff is not None and counted.max_abs_diff > tolerance.max_abs_diff:
        yield "max_abs_diff", f"an answer differs by {counted.max_abs_diff:g}, more than {tolerance.max_abs_diff:g},"
    if measured.metric is not None and evidence.metric is not None and tolerance.max_metric_drop is not None:
        lost = metric.drop(evidence.metric, measured.metric)
        if lost > tolerance.max_metric_drop:
            said = f"{measured.metric.name} falls by {lost:.4f}, more than {tolerance.max_metric_drop:g},"
            yield "max_metric_drop", said


def closest(evidence: Evidence, question: Question, answers: Answers) -> Agreement:
    """Compare with what the original answered through this loader, or through a session where that is closer.

    tf.saved_model.load builds other calls around the same operations once the object graph is gone, and TensorFlow
    fuses them differently, in every layer of a deep net: EfficientNetV2B0 answers 2e-4 apart through its own two
    loaders, and without object graph through both as it did in a session.
    """
    found = compare(question.answers, answers, question.rows, judges_amounts=not question.samples.generated)
    for asked in evidence.questions:
        if not found.identical and asked.loader == "session" and asked.asks_same(question):
            other = compare(asked.answers, answers, asked.rows, judges_amounts=not asked.samples.generated)
            found = min(found, other, key=lambda one: (one.new_non_finite, -one.agreement, one.max_relative_diff))
    return found


def answers_of(path: Path, main: Question, samples: Samples, tags: Sequence[tuple[str, ...]]) -> list[Answers]:
    """Put samples to the main signature of each MetaGraph, through the main loader. Raises `ModelError`."""
    records = [(its, main.signature, samples) for its in tags]
    return in_child(_ask_again, path, records, range(len(records)), main.loader)


def _first_alike(asked: Sequence[Question]) -> list[int]:
    """Return for each question the first one that the original answered with the same bits: itself, mostly."""
    return [
        next(first for first, other in enumerate(asked) if first == number or question.is_answered_as(other))
        for number, question in enumerate(asked)
    ]


def _ask_again(
    path: Path, asked: Sequence[tuple[tuple[str, ...], str, Samples]], alike: Sequence[int], loader: Loader
) -> list[Answers]:
    """Runs in a child: put the same records to a changed model, and return its answers in the same order.

    `alike` names for each question an earlier one, or itself. Where its signature computes the same, it is not asked
    again; a model that draws numbers or counts its calls answered the original's two differently, and is.
    """
    answers: dict[int, Answers] = {}
    for tags in dict.fromkeys(tags for tags, _, _ in asked):
        with same_draws(), Servable(path, tags=tags, loader=loader) as servable:
            for number, (its_tags, signature, samples) in enumerate(asked):
                if its_tags != tags:
                    continue
                first = alike[number]
                if first != number and servable.computes_same(asked[first][1], signature):
                    answers[number] = answers[first]
                else:
                    answers[number] = [servable(signature, request) for request in samples.requests()]
    return [answers[number] for number in range(len(asked))]
