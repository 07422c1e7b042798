"""Makes the draft of a rung and writes it: in one way, in a milder one, or weight by weight as far as it must."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from servegraph.answers.gate import Loss
from servegraph.errors import ModelError
from servegraph.optimize.attempts import Attempts
from servegraph.optimize.rungs import Rung
from servegraph.optimize.storing import Storing
from servegraph.optimize.terms import Terms, Written
from servegraph.optimize.vocabulary import counted, shortened, signatures_with, vocabularies
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.graph import Untransformable


@dataclass
class Making:
    """What the rungs of a climb make; a draft that was made is kept, and not made again."""

    terms: Terms
    attempts: Attempts
    _made: dict[str, tuple[Draft, Draft]] = field(default_factory=dict)  # by rung: of which draft it makes which

    def __post_init__(self) -> None:
        """Prepare the rungs that store weights in a smaller form."""
        self.storing = Storing(self.attempts)

    def draft(self, rung: Rung, base: Draft) -> Draft | None:
        """Return the draft that a rung makes of another; None where that is the same."""
        if rung.plan is not None:
            narrowed = self.storing.narrowed(rung.plan, base)
            return narrowed.draft if narrowed else None
        before, draft = self._made.get(rung.name, (None, base))
        if before is not base:
            trimmed = self._trimmed() if rung.trims else base
            change = rung.change if self.terms.climbs_all else rung.unasked or rung.change
            draft = change(trimmed) if change is not None else trimmed
            self._made[rung.name] = (base, draft)
        return None if draft is base or draft == base else draft

    def __call__(self, rung: Rung, loss: Loss | None) -> Written | None:
        """Write what a rung makes of the best draft; None where that is the same.

        `loss` is what its answers may lose. With None it is not asked, and hollow.
        """

        def attempt(draft: Draft) -> Written:
            written = self.attempts.write(draft, hollow=loss is None)
            return written if loss is None else self.attempts.judged(written, loss)

        if rung.plan is not None:
            return self.storing(rung.plan, attempt)
        best = self.attempts.best.draft
        draft = self.draft(rung, best)
        if draft is None:
            return None
        found = attempt(draft)
        if not found.objection or rung.milder is None or (milder := rung.milder(best)) == draft:
            return found
        tried = attempt(milder)
        better, worse = (found, tried) if tried.objection else (tried, found)
        self.attempts.discard(worse)
        return better

    def _trimmed(self) -> Draft:
        """Shorten vocabularies; the first loader that takes the original says what is looked up.

        One that a signature without samples looks up as well stays: of that nothing is known.
        """
        evidence = self.attempts.evidence
        asked = [q for q in evidence.questions if q.loader == evidence.main.loader and not q.samples.generated]
        if not asked:
            raise Untransformable("no samples say what is looked up; give --samples")
        draft = self.attempts.best.draft
        found = [(graph, v) for graph in draft.serving_graphs for v in vocabularies(graph, draft.source)]
        if not found:
            raise Untransformable("it has no vocabulary whose ids only pick rows and whose unknown words share one id")
        known = {question.signature for question in asked}
        tables = {v.table: v.finds for graph, v in found if signatures_with(graph, v) <= known}
        if not tables:
            raise Untransformable("signatures without samples look up words as well; give --samples that fit them too")
        try:
            counts = [counted(self.attempts.best.path, question, tables) for question in asked]
        except ModelError as exc:
            raise Untransformable(f"what is looked up cannot be counted: {exc}") from exc
        seen = {table: np.concatenate([ids[table] for ids in counts]) for table in tables}
        return shortened(draft, seen, self.terms.min_count)
