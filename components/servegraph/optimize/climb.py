"""Climbs the ladder: each rung is written, asked, and kept or undone; lossy ones only as far as the budget asks."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from servegraph.answers import gate, golden
from servegraph.answers.ask import Loader
from servegraph.answers.evidence import Evidence
from servegraph.answers.gate import Loss
from servegraph.errors import ModelError, StorageError
from servegraph.machines.sizes import format_size
from servegraph.optimize import sensitivity, served_memory, speed, spending
from servegraph.optimize.result import Step
from servegraph.optimize.rungs import Rung, planned
from servegraph.optimize.terms import Terms, Written, directory_bytes
from servegraph.optimize.vocabulary import counted, shortened, vocabularies
from servegraph.progress import Progress
from servegraph.rewriting import draft as drafts
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.forms import Form
from servegraph.rewriting.graph import Untransformable
from servegraph.rewriting.weights import Weight, loosen, weights_of
from servegraph.savedmodel.layout import GOLDEN_FILE

_log = logging.getLogger(__name__)
_LOSSES: tuple[Loss, ...] = ("none", "rounding", "tolerance")
_ROUNDS = 6  # of trying wider weights, each of which writes and asks the model
_WORTH_SPENDING = 0.01  # of the model; for less it is not worth measuring what each weight does


@dataclass
class Climb:
    """The state of one climb: the best model so far, and the steps."""

    terms: Terms
    evidence: Evidence
    workspace: Path
    best: Written
    reserved_bytes: int  # for what is added at the end
    steps: list[Step] = field(default_factory=list)
    kept: list[tuple[int, Draft, Loss]] = field(default_factory=list)  # step, the draft, and what it may lose
    held: set[str] = field(default_factory=set)  # weights too sensitive for a lossy rung that was tried
    forms: dict[str, list[Form]] = field(default_factory=dict)  # of each weight, the widest first
    _writes: int = 0
    _asking_s: float = 0.0

    def run(self) -> None:
        """Try all rungs in order, then ask the result through every loader."""
        with Progress("optimize", total=len(self.terms.rungs)) as progress:
            for rung in self.terms.rungs:
                started, asked = time.monotonic(), self._asking_s
                step = self._climb(rung)
                step = replace(
                    step,
                    seconds=round(time.monotonic() - started, 3),
                    asking_seconds=round(self._asking_s - asked, 3),
                )
                self.steps.append(step)
                note = "" if step.kept else f", {step.reason}"
                progress.advance(f"{rung.name}: {format_size(step.bytes)}{note}")
        self._confirm()

    @property
    def fits(self) -> bool:
        """Whether the best model is within the budget, with what will be added to it."""
        return self.terms.budget_bytes is not None and self.best.size + self.reserved_bytes <= self.terms.budget_bytes

    def _climb(self, rung: Rung) -> Step:
        is_asked_for = self.terms.climbs_all or self.terms.budget_bytes is not None
        if rung.waits and (self.fits or not is_asked_for):
            reason = "not needed: it fits" if self.fits else "not needed: no budget asks for it"
            return Step(rung.name, rung.what, False, self.best.size, reason=reason)
        try:
            found = self._stored_smaller(rung) if rung.plan else self._changed(rung)
        except (ModelError, StorageError):  # a damaged source, a full disk: not the rung's fault
            raise
        except Untransformable as why:
            return Step(rung.name, rung.what, False, self.best.size, reason=f"cannot be applied: {why}")
        except Exception as exc:  # of a graph that nobody foresaw: the rung is left out, and the ladder goes on
            _log.debug("The rung %s failed.", rung.name, exc_info=True)
            reason = f"cannot be applied: {type(exc).__name__}: {str(exc)[:200]}"
            return Step(rung.name, rung.what, False, self.best.size, reason=reason)
        if found is None:
            return Step(rung.name, rung.what, False, self.best.size, reason="nothing to do")
        reason = self._reason(rung, found)
        main = next(iter(found.measured), None)
        step = Step(
            name=rung.name,
            what=rung.what,
            kept=not reason,
            bytes=found.size,
            max_abs_diff=main.everything.max_abs_diff if main else None,
            mean_abs_diff=main.everything.mean_abs_diff if main else None,
            metric=main.metric.value if main and main.metric else None,
            agreement=found.worst_agreement,
            reason=reason,
            forms=dict(Counter(form.name for form in found.draft.forms.values())) or None,
        )
        if reason:
            self._discard(found)
        else:
            self.kept.append((len(self.steps), found.draft, self._loss(rung.loss)))
            self._take(found)
        return step

    def _reason(self, rung: Rung, found: Written) -> str:
        """Return why what a rung made is not kept, empty where it is."""
        if found.objection:
            return f"undone: {found.objection}"
        if rung.speed is not None:
            try:
                ratios = speed.ratios(self.best.path, found.path, self.evidence.main)
                return speed.objection(ratios, rung.speed) or served_memory.objection(
                    found.draft.source, found.path, self.evidence.main
                )
            except ModelError as exc:
                return f"undone: {exc}"
        if not rung.grows:
            return "saves nothing" if found.size >= self.best.size else ""
        is_larger = found.size > self.best.size * 1.01 + 4096
        return f"makes the model larger: {format_size(found.size)}" if is_larger else ""

    def _changed(self, rung: Rung) -> Written | None:
        """Apply a rung that changes the draft."""
        draft = self._trimmed() if rung.trims else self.best.draft
        if rung.change is not None:
            draft = rung.change(draft)
        if draft == self.best.draft:
            return None
        found = self._try(draft, rung.loss)
        if not found.objection or rung.milder is None or (milder := rung.milder(self.best.draft)) == draft:
            return found
        tried = self._try(milder, rung.loss)
        better, worse = (found, tried) if tried.objection else (tried, found)
        self._discard(worse)
        return better

    def _trimmed(self) -> Draft:
        """Shorten vocabularies; the first loader that takes the original says what is looked up."""
        question = self.evidence.main
        if question.samples.generated:
            raise Untransformable("no samples say what is looked up; give --samples")
        draft = self.best.draft
        tables = {v.table: v.finds for graph in draft.serving_graphs for v in vocabularies(graph, draft.source)}
        if not tables:
            raise Untransformable("it has no vocabulary whose ids only pick rows")
        try:
            seen = counted(self.best.path, question, tables)
        except ModelError as exc:
            raise Untransformable(f"what is looked up cannot be counted: {exc}") from exc
        return shortened(draft, seen, self.terms.min_count)

    def _stored_smaller(self, rung: Rung) -> Written | None:
        """Apply a rung that stores weights in a smaller form, to as many weights as budget and tolerance ask."""
        assert rung.plan is not None
        loose = loosen(self.best.draft)
        with loose.tensors() as tensors:
            forms = planned(loose, rung.plan, tensors)
        forms = {key: form for key, form in forms.items() if key not in self.held}
        if not forms:
            return None
        narrow = {**loose.forms, **forms}
        found = self._try(replace(loose, forms=narrow), rung.loss)
        spare = (self.terms.budget_bytes or 0) - self.reserved_bytes - found.size
        is_worth_spending = self.terms.budget_bytes is not None and spare > _WORTH_SPENDING * found.size
        if found.objection or is_worth_spending:
            tried, found = found, self._widened(rung, loose, narrow, forms, found)
            if tried.objection and found.size >= self.best.size:  # all that it would save breaks the tolerance
                found = replace(found, measured=tried.measured, objection=tried.objection)
        for key, form in forms.items():
            if found.draft.forms.get(key) is form:
                self.forms.setdefault(key, []).append(form)
        return found

    def _widened(
        self, rung: Rung, loose: Draft, narrow: Mapping[str, Form], forms: Mapping[str, Form], found: Written
    ) -> Written:
        """Let the weights that matter most stay wider: as many as fit, or else as few as the tolerance needs."""
        weights = [weight for weight in weights_of(loose) if weight.key in forms]
        wider = {key: list(reversed(self.forms.get(key, []))) for key in forms}
        distances = self._distances(loose, found, weights)
        order = spending.upgrades(weights, forms, wider, distances)
        if self.terms.budget_bytes is not None:
            spare = self.terms.budget_bytes - self.reserved_bytes - found.size
            for _ in range(2):  # the graph grows or shrinks with the forms: what it came to is taken off
                taken = spending.affordable(order, spare)
                if not taken:
                    break
                spent = self._try(replace(loose, forms=spending.applied(narrow, taken)), rung.loss)
                excess = spent.size + self.reserved_bytes - self.terms.budget_bytes
                if excess <= 0:
                    if not spent.objection:
                        self._discard(found)
                        return spent
                    self._discard(spent)
                    break
                self._discard(spent)
                spare -= excess
        return self._least_widened(rung, loose, narrow, order, found) if found.objection else found

    def _least_widened(
        self,
        rung: Rung,
        loose: Draft,
        narrow: Mapping[str, Form],
        order: Sequence[spending.Upgrade],
        found: Written,
    ) -> Written:
        """Undo the rung for the fewest weights that bring the answers back within the tolerance."""
        too_few, enough = 0, len(order)
        best: Written | None = None
        for _ in range(_ROUNDS):
            if enough - too_few <= 1 and best is not None:
                break
            count = max((too_few + enough) // 2, too_few + 1)
            if count >= len(order):
                break
            tried = self._try(replace(loose, forms=spending.applied(narrow, order[:count])), rung.loss)
            if tried.objection:
                too_few = count
                self._discard(tried)
            else:
                enough = count
                if best is not None:
                    self._discard(best)
                best = tried
        if best is None:
            return found
        self._discard(found)
        self.held |= {upgrade.key for upgrade in order[:enough]}
        return best

    def _distances(self, loose: Draft, found: Written, weights: Sequence[Weight]) -> Mapping[str, float]:
        """Return how much each weight matters, all alike where that cannot be measured."""
        question = self.evidence.main
        wide = self._write(replace(loose, forms={}))
        try:
            return sensitivity.measure(wide, found.path, weights, question)
        except ModelError:
            return dict.fromkeys((weight.key for weight in weights), 1.0)
        finally:
            shutil.rmtree(wide)

    def _loss(self, loss: Loss) -> Loss:
        """Return what the answers may lose with a rung of this loss on top of what was kept."""
        return max((loss, *(kept for _, _, kept in self.kept)), key=_LOSSES.index)

    def _write(self, draft: Draft) -> Path:
        self._writes += 1
        path = self.workspace / str(self._writes)
        drafts.write(draft, path, (self.best.draft, self.best.path))
        return path

    def _try(self, draft: Draft, loss: Loss) -> Written:
        """Write a draft and ask it through the first loader that takes the original."""
        return self._judged(draft, self._write(draft), self._loss(loss), self.evidence.loaders[:1])

    def _judged(self, draft: Draft, path: Path, loss: Loss, loaders: Sequence[Loader]) -> Written:
        started = time.monotonic()
        try:
            found = gate.measure(path, self.evidence, loaders)
            objection = gate.objection(found, self.evidence, loss, self.terms.tolerance)
        except (ModelError, ValueError) as exc:
            found, objection = [], str(exc)
        self._asking_s += time.monotonic() - started
        return Written(draft, path, directory_bytes(path), found, objection)

    def _take(self, found: Written) -> None:
        previous, self.best = self.best, found
        if previous.path.parent == self.workspace:
            shutil.rmtree(previous.path)

    def _discard(self, found: Written) -> None:
        shutil.rmtree(found.path)

    def _confirm(self) -> None:
        """Ask the result through the other loaders as well; undo from the last step on what they do not bear."""
        others = self.evidence.loaders[1:]
        while self.kept and others:
            number, draft, loss = self.kept[-1]
            found = self._judged(draft, self.best.path, loss, others)
            step = self.steps[number]
            if not found.objection:
                worst = min(value for value in (step.agreement, found.worst_agreement) if value is not None)
                self.steps[number] = replace(step, agreement=worst)
                return
            self.steps[number] = replace(
                step, kept=False, reason=f"undone: {found.objection}", agreement=found.worst_agreement
            )
            self.kept.pop()
            before = self.kept[-1][1] if self.kept else None
            if before is None:
                self._take(Written(draft, unchanged(draft, self.workspace), 0, [], ""))
            else:
                path = self._write(before)
                self._take(Written(before, path, directory_bytes(path), [], ""))


def start(original: Draft, terms: Terms, evidence: Evidence, workspace: Path) -> Climb:
    """Return a climb that begins at the original; room is left for golden requests where they are small."""
    golden_file = original.source / GOLDEN_FILE  # recorded anew at the end, so no rung is to be credited with it
    recorded = golden_file.stat().st_size if golden_file.is_file() else 0
    best = Written(original, original.source, directory_bytes(original.source) - recorded, [], "")
    golden_bytes = golden.expected_bytes(evidence.main.samples, evidence.main.answers) if evidence.questions else 0
    is_small = terms.budget_bytes is not None and golden_bytes <= golden.ALLOWANCE * terms.budget_bytes
    return Climb(terms, evidence, workspace, best, golden_bytes if is_small else 0)


def unchanged(draft: Draft, workspace: Path) -> Path:
    """Return a copy of the original without its stray files."""
    path = workspace / "original"
    drafts.copy_unchanged(draft.source, path)
    return path
