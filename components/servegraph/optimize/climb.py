"""Climbs the ladder: each rung is written, asked, and kept or undone; lossy ones only as far as the budget asks."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from servegraph.answers import gate, golden
from servegraph.answers.evidence import Evidence
from servegraph.answers.gate import Loss
from servegraph.errors import ModelError, StorageError
from servegraph.machines.sizes import format_size
from servegraph.optimize import served_memory, speed
from servegraph.optimize.attempts import Attempts
from servegraph.optimize.free_memory import free_bytes, lack_of_room
from servegraph.optimize.making import Making
from servegraph.optimize.result import Step
from servegraph.optimize.rungs import COMPRESS, Rung, expected_by_compressing
from servegraph.optimize.terms import Terms, Written, directory_bytes
from servegraph.progress import Progress
from servegraph.rewriting import draft_writer
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.graph import Untransformable
from servegraph.savedmodel.layout import GOLDEN_FILE

_log = logging.getLogger(__name__)
_NO_BUDGET = "not needed: no budget asks for it"
_HOPE = 1.1  # times what deflating is expected to save: it is worth trying
_LOSSES: tuple[Loss, ...] = ("none", "rounding", "tolerance")


@dataclass
class Climb:
    """The state of one climb: the best model so far, and the steps."""

    terms: Terms
    attempts: Attempts
    progress: Progress
    reserved_bytes: int = 0  # for what is added at the end
    steps: list[Step] = field(default_factory=list)
    kept: list[tuple[int, Draft, Loss]] = field(default_factory=list)  # step, the draft, and what it may lose

    def __post_init__(self) -> None:
        """Prepare what makes the drafts."""
        self._original = self.attempts.best
        self._making = Making(self.terms, self.attempts)
        self._saving: tuple[Draft, int] | None = None  # what deflating a draft is expected to save

    def foresee(self, is_enough: Callable[[], bool]) -> None:
        """Write what the rungs make as if each were kept, until `is_enough`, while the original is still being asked.

        What comes otherwise is written again. An error comes again as well when the rung is climbed.
        """
        best = self.best
        try:
            for rung in self.terms.rungs:
                if is_enough() or rung.trims or rung.speed is not None or self._may_fit_deflated(rung, best):
                    break
                if self._why_not(rung, best):
                    continue
                self.progress.under_way(f"asking the original, writing {rung.name}")
                if not rung.bears_asking_later:
                    best = self.attempts.fill_ahead(best)
                draft = self._making.draft(rung, best.draft)
                if draft is None:
                    continue
                written = self.attempts.write_ahead(draft, best, hollow=rung.bears_asking_later)
                if not self._weighs_too_much(rung, best, written):
                    best = written
            self.attempts.fill_ahead(best)
            self.progress.under_way("asking the original")
        except Exception:
            _log.debug("The climb was not foreseen to its end.", exc_info=True)
            self.attempts.forget_ahead()

    def run(self, evidence: Evidence) -> None:
        """Try all rungs in order, then ask the result through every loader; `evidence` has at least one question.

        Room is left for golden requests where they are small, but at the cost of accuracy.
        """
        self.attempts.evidence = evidence
        budget = self.terms.budget_bytes
        if budget is not None and evidence.questions:
            golden_bytes = golden.expected_bytes(evidence.main.samples, evidence.main.answers)
            self.reserved_bytes = golden_bytes if golden_bytes <= golden.ALLOWANCE * budget else 0
            self._making.storing.room_bytes = budget - self.reserved_bytes
        for is_asked_at_once, rungs in groupby(self.terms.rungs, key=lambda rung: rung.bears_asking_later):
            for step in self._climb_together([*rungs]) if is_asked_at_once else self._climb_each(rungs):
                note = "" if step.kept else f", {step.reason}"
                self.progress.advance(f"{step.name}: {format_size(step.bytes)}{note}")
        self.attempts.forget_ahead()
        self.progress.under_way("asking the result")
        self._confirm()

    @property
    def best(self) -> Written:
        """The best model so far."""
        return self.attempts.best

    def fits(self, written: Written, *, alone: bool = False) -> bool:
        """Whether a model is within the budget, with what will be added to it; `alone` without that."""
        budget, added = self.terms.budget_bytes, 0 if alone else self.reserved_bytes
        return budget is not None and written.size + added <= budget

    def _is_met(self, rung: Rung, best: Written) -> bool:
        """Whether the budget asks for no such rung: for golden requests names are given, and no accuracy."""
        return self.fits(best, alone=rung.loss == "tolerance")

    def _climb_each(self, rungs: Iterable[Rung]) -> Iterator[Step]:
        """Write and ask what each rung makes, and keep or undo it; what fits once it is deflated is to lose no more."""
        is_deflated = False
        for rung in rungs:
            if self._may_fit_deflated(rung, self.best):
                step, found = self._climb(COMPRESS, asks=True)
                if found is not None and self.fits(found, alone=True):
                    is_deflated = True
                    yield self._taken(COMPRESS, step, found)
                elif found is not None:
                    self.attempts.discard(found)
            if not (is_deflated and rung is COMPRESS):
                yield self._taken(rung, *self._climb(rung, asks=True))

    def _taken(self, rung: Rung, step: Step, found: Written | None) -> Step:
        """Make what a rung made the best, if it may stay, and note the step."""
        if found is not None:
            self.kept.append((len(self.steps), found.draft, self._loss(rung.loss)))
            self.attempts.discard(self.attempts.take(found))
        self.steps.append(step)
        return step

    def _may_fit_deflated(self, rung: Rung, best: Written) -> bool:
        """Whether deflating, of which this is judged by a glance, may do instead of a rung that loses more."""
        budget = self.terms.budget_bytes
        if rung.plan is None or self.terms.climbs_all or budget is None or self._is_met(rung, best):
            return False
        if self._saving is None or self._saving[0] is not best.draft:
            self._saving = (best.draft, expected_by_compressing(best.draft))
        return best.size - _HOPE * self._saving[1] <= budget

    def _climb_together(self, rungs: Sequence[Rung]) -> Iterator[Step]:
        """Write what each rung makes and ask the last of it; where that must not stay, climb one after the other."""
        first = exact = self.best  # `exact` is the last one that must have kept every bit
        climbed: list[tuple[Step, Written | None, Loss]] = []
        for rung in rungs:
            step, found = self._climb(rung, asks=False)
            climbed.append((step, found, rung.loss))
            if found is None:
                continue
            previous = self.attempts.take(found)
            if previous is exact and rung.loss == "none":
                exact = found
            if previous is not first and previous is not exact:
                self.attempts.discard(previous)
        started, asked_before_s = time.monotonic(), self.attempts.asking_s
        last = self.attempts.filled(self.best)
        self.progress.under_way(f"asking what {climbed[-1][0].name} left")
        confirmed = self._asked_together(first, exact, last)
        best = first if confirmed is None else last
        self.attempts.take(best)
        for written in {one.path: one for one in (first, exact, last) if one.path != best.path}.values():
            self.attempts.discard(written)
        if confirmed is None:
            yield from self._climb_each(rungs)
            return
        before, after = confirmed
        self.attempts.take(after)
        took_s, asked_s = time.monotonic() - started, self.attempts.asking_s - asked_before_s
        figures = _figures(after if exact is first else before)
        for step, found, loss in climbed:
            done = step
            if found is not None:
                done = replace(step, **figures)
                self.kept.append((len(self.steps), found.draft, self._loss(loss)))
            if found and found.path == last.path:
                done = replace(done, seconds=round(step.seconds + took_s, 3), asking_seconds=round(asked_s, 3))
            if found is exact:
                figures = _figures(after)
            self.steps.append(done)
            yield done

    def _asked_together(self, first: Written, exact: Written, last: Written) -> tuple[Written, Written] | None:
        """Ask what several rungs made, and return `exact` and `last` with what was measured; None if one must not stay.

        If the last answers with the bits of the original, so does what it was made of. If it rounds otherwise, as it
        may after `fold`, what was there before that rung is asked as well.
        """
        if last.path == first.path:
            return first, first
        asked = self.attempts.judged(last, self._loss("none" if exact.path == last.path else "rounding"))
        if asked.objection:
            return None
        if exact is first or exact.path == last.path or all(found.everything.identical for found in asked.measured):
            return asked, asked
        before = self.attempts.judged(self.attempts.filled(exact), self._loss("none"))
        return None if before.objection else (before, asked)

    def _climb(self, rung: Rung, *, asks: bool) -> tuple[Step, Written | None]:
        """Write what a rung makes, ask it if `asks`, and return it where it may stay; what may not is gone."""
        self.progress.under_way(rung.name)
        started, asked_s = time.monotonic(), self.attempts.asking_s
        step = Step(rung.name, rung.what, False, self.best.size)
        found = None
        try:
            reason = self._why_not(rung, self.best)
            if not reason:
                found = self._making(rung, self._loss(rung.loss) if asks else None)
                reason = self._objection(rung, found) if found else "nothing to do"
        except (ModelError, StorageError):  # a damaged source, a full disk: not the rung's fault
            raise
        except Untransformable as why:
            reason = f"cannot be applied: {why}"
        except Exception as exc:  # of a graph that nobody foresaw: the rung is left out, and the ladder goes on
            _log.debug("The rung %s failed.", rung.name, exc_info=True)
            reason = f"cannot be applied: {type(exc).__name__}: {str(exc)[:200]}"
        step = replace(
            step,
            kept=not reason,
            reason=reason,
            seconds=round(time.monotonic() - started, 3),
            asking_seconds=round(self.attempts.asking_s - asked_s, 3),
            needs=self._needs(reason, found),
        )
        if found is None:
            return step, None
        forms = dict(Counter(form.name for form in found.draft.forms.values())) or None
        step = replace(step, bytes=found.size, forms=forms, **_figures(found))
        if found.in_full is not None:
            step = replace(
                step,
                full_bytes=found.in_full.size,
                full_agreement=found.in_full.worst_agreement,
                needs=self._needs(reason, found.in_full),
            )
        if reason:
            self.attempts.discard(found)
            return step, None
        return step, found

    def _why_not(self, rung: Rung, best: Written) -> str:
        """Return why a rung is not climbed from `best`, empty where it is."""
        is_asked_for = self.terms.climbs_all or self.terms.budget_bytes is not None
        if not rung.waits or (is_asked_for and not self._is_met(rung, best)):
            return ""
        return "not needed: it fits" if self._is_met(rung, best) else _NO_BUDGET

    def _needs(self, reason: str, found: Written | None) -> tuple[str, ...]:
        """Return what a rung that is left out needs to be kept: a budget, or other limits; empty where none helps."""
        if reason == _NO_BUDGET:
            return ("budget",)
        if found is None or not found.objection:
            return ()
        return gate.broken_limits(found.measured, self.attempts.evidence, self.terms.tolerance)

    def _objection(self, rung: Rung, found: Written) -> str:
        """Return why what a rung made is not kept, empty where it is."""
        if found.objection:
            return f"undone: {found.objection}"
        if rung.speed is not None:
            if self.fits(self.best) and not self.fits(found):
                return f"makes the model larger than the budget: {format_size(found.size)}"
            against = self.best if rung.speed > 1 else self._original
            if reason := lack_of_room(against.draft, found.draft, free_bytes()):
                return reason
            try:
                ratios = speed.ratios(against.path, found.path, self.attempts.evidence, rung.speed)
                return speed.objection(ratios, rung.speed) or served_memory.objection(
                    found.draft.source, found.path, self.attempts.evidence.main
                )
            except ModelError as exc:
                return f"undone: {exc}"
        return self._weighs_too_much(rung, self.best, found)

    @staticmethod
    def _weighs_too_much(rung: Rung, best: Written, found: Written) -> str:
        if not rung.grows:
            return "saves nothing" if found.size >= best.size else ""
        is_larger = found.size > best.size * 1.01 + 4096
        return f"makes the model larger: {format_size(found.size)}" if is_larger else ""

    def _loss(self, loss: Loss) -> Loss:
        """Return what the answers may lose with a rung of this loss on top of what was kept."""
        return max((loss, *(kept for _, _, kept in self.kept)), key=_LOSSES.index)

    def _confirm(self) -> None:
        """Ask the result through the other loaders as well; undo from the last step on what they do not bear."""
        others = self.attempts.evidence.loaders[1:]
        while self.kept and others:
            number, draft, loss = self.kept[-1]
            found = self.attempts.judged(self.best, loss, others)
            step = self.steps[number]
            if not found.objection:
                worst = min(value for value in (step.agreement, found.worst_agreement) if value is not None)
                self.steps[number] = replace(step, agreement=worst)
                return
            reason = f"undone: {found.objection}"
            self.steps[number] = replace(
                step,
                kept=False,
                reason=reason,
                agreement=found.worst_agreement,
                needs=self._needs(reason, found),
            )
            self.kept.pop()
            if self.kept:
                before = self.attempts.write(self.kept[-1][1])
            else:
                before = Written(draft, unchanged(draft, self.attempts.workspace), 0)
            self.attempts.discard(self.attempts.take(before))


def start(original: Draft, terms: Terms, workspace: Path, progress: Progress) -> Climb:
    """Return a climb that begins at the original."""
    golden_file = original.source / GOLDEN_FILE  # recorded anew at the end, so no rung is to be credited with it
    recorded = golden_file.stat().st_size if golden_file.is_file() else 0
    best = Written(original, original.source, directory_bytes(original.source) - recorded)
    return Climb(terms, Attempts(terms.tolerance, workspace, best), progress)


def unchanged(draft: Draft, workspace: Path) -> Path:
    """Return a copy of the original without its stray files."""
    path = workspace / "original"
    draft_writer.copy_unchanged(draft.source, path)
    return path


def _figures(found: Written) -> dict[str, Any]:
    """Return what was measured of a model as a step has it."""
    main = next(iter(found.measured), None)
    return {
        "max_abs_diff": main.everything.max_abs_diff if main else None,
        "mean_abs_diff": main.everything.mean_abs_diff if main else None,
        "metric": main.metric.value if main and main.metric else None,
        "agreement": found.worst_agreement,
    }
