"""Records the golden requests of a result: what a deployment of it must answer again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from servegraph.answers import gate, golden
from servegraph.answers.evidence import Answers, Evidence, Question
from servegraph.answers.generated import say_something
from servegraph.answers.golden import Recorded
from servegraph.answers.repeats import outputs_that_vary, without
from servegraph.answers.samples import Samples
from servegraph.errors import ModelError
from servegraph.optimize.inline import may_vary
from servegraph.optimize.terms import Written, directory_bytes
from servegraph.rewriting.draft import Draft
from servegraph.savedmodel.layout import GOLDEN_FILE


def varying_outputs(draft: Draft, path: Path, evidence: Evidence) -> set[str]:
    """Return the outputs that a server answers otherwise from call to call; all where it does not answer always."""
    if not evidence.questions or not (draft.untouched or any(map(may_vary, draft.serving_graphs))):
        return set()
    try:
        return outputs_that_vary(path, evidence.main)
    except ModelError:
        return {name for answer in evidence.main.answers for name in answer}


def record(best: Written, path: Path, evidence: Evidence, budget_bytes: int | None, varying: set[str]) -> Recorded:
    """Write the golden requests with what the result answered when it was asked, and return what was recorded.

    What it answers otherwise from call to call no deployment could compare.
    """
    cannot = "the original could not be asked" if not evidence.questions else ""
    if evidence.questions and _is_in_parts(best.draft, evidence.main):
        cannot = f"no request of a server holds the sparse tensors that {evidence.main.signature!r} takes"
    if cannot:  # a copy of the original may have its own
        return Recorded(0, why_none="" if (path / GOLDEN_FILE).exists() else cannot)
    main = evidence.main
    outputs = _definition(best.draft, main).outputs
    parts = {name for answer in main.answers for name in answer if name not in outputs}
    given = next((found.given for found in best.measured if found.loader == main.loader), ())
    if not given:  # what is left after a rung was undone, or all of the original
        [measured] = gate.measure(path, evidence, [main.loader])
        given = measured.given
    answers = {question.tags: its for question, its in given if question.asks_same(main, any_tags=True)}
    size = directory_bytes(path)
    free = None if budget_bytes is None else max(budget_bytes - size, 0)

    def write(samples: Samples, its: Mapping[tuple[str, ...], Answers]) -> Recorded:
        left_out = varying | parts
        fixed = {tags: [without(answer, left_out) for answer in answers] for tags, answers in its.items()}
        found = golden.write(path, main.signature, samples, fixed.pop(main.tags), size, free, fixed)
        is_all_in_parts = all(parts >= answer.keys() for answer in main.answers)
        return replace(
            found,
            in_parts=tuple(sorted({name.rpartition("/")[0] for name in parts})),
            why_none="all that is answered is ragged or sparse" if is_all_in_parts else found.why_none,
        )

    brief = golden.in_brief(main.samples, answers[main.tags], size)
    if brief is not None:
        with contextlib.suppress(ModelError):  # a request that the model need not take
            asked = gate.answers_of(path, main, brief, [*answers])
            brief_answers = dict(zip(answers, asked, strict=True))
            if say_something(brief_answers[main.tags]) and (recorded := write(brief, brief_answers)).lines:
                return recorded
    return write(main.samples, answers)


def _is_in_parts(draft: Draft, question: Question) -> bool:
    """Whether a signature was asked with the parts of what it takes whole."""
    return not question.samples.inputs.keys() <= {*_definition(draft, question).inputs}


def _definition(draft: Draft, question: Question) -> SignatureDef:
    """Return the signature that was asked."""
    found = next(one for one in draft.definitions if {*one.meta_info_def.tags} == {*question.tags})
    return found.signature_def[question.signature]
