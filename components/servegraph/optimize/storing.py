"""Stores weights in a smaller form: as many as budget and tolerance ask, and those that matter most wider."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import NamedTuple

from servegraph.errors import ModelError
from servegraph.optimize import sensitivity, spending
from servegraph.optimize.attempts import Attempts
from servegraph.optimize.rungs import planned
from servegraph.optimize.terms import Written
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.forms import Form, Planner
from servegraph.rewriting.weights import Weight, loosen, weights_of

_ROUNDS = 6  # of trying wider weights, each of which writes and asks the model
_WORTH_SPENDING = 0.01  # of the model; for less it is not worth measuring what each weight does
_UNSEEN = 0.01  # times the least weight: what moves no answer of the main signature may move one of another
_CLOSE = 1.05  # times as far: not worth writing the model again

Try = Callable[[Draft], Written]  # writes a draft and asks it


class Narrowed(NamedTuple):
    """A draft with weights in a smaller form: what it was made of, which weights, and the draft."""

    base: Draft
    loose: Draft
    forms: Mapping[str, Form]
    draft: Draft


@dataclass
class Storing:
    """What the rungs that store weights in a smaller form know of each other.

    `room_bytes` is what the budget leaves for the model, None without one.
    """

    attempts: Attempts
    room_bytes: int | None = None
    _held: set[str] = field(default_factory=set)  # weights too sensitive for a lossy rung that was tried
    _forms: dict[str, list[Form]] = field(default_factory=dict)  # of each weight, the widest first
    _foreseen: dict[Planner, Narrowed] = field(default_factory=dict)

    def narrowed(self, plan: Planner, base: Draft) -> Narrowed | None:
        """Return the draft with all weights in the form that `plan` finds; None where it finds none."""
        foreseen = self._foreseen.get(plan)
        if foreseen is not None and foreseen.base is base and not self._held:
            return foreseen
        loose = loosen(base)
        with loose.tensors() as tensors:
            forms = planned(loose, plan, tensors)
        forms = {key: form for key, form in forms.items() if key not in self._held}
        if not forms:
            return None
        made = Narrowed(base, loose, forms, replace(loose, forms={**loose.forms, **forms}))
        self._foreseen[plan] = made
        return made

    def __call__(self, plan: Planner, attempt: Try) -> Written | None:
        """Apply a rung to as many weights as budget and tolerance ask; None where there is nothing to do."""
        made = self.narrowed(plan, self.attempts.best.draft)
        if made is None:
            return None
        _, loose, forms, draft = made
        narrow = draft.forms
        found = attempt(draft)
        is_worth_spending = self.room_bytes is not None and self.room_bytes - found.size > _WORTH_SPENDING * found.size
        if found.objection or is_worth_spending:
            tried, found = found, self._widened(attempt, loose, narrow, forms, found)
            if tried.objection and found.size >= self.attempts.best.size:  # all it would save breaks the tolerance
                found = replace(found, measured=tried.measured, objection=tried.objection, size=tried.size)
            elif tried.objection and not found.objection:
                found = replace(found, in_full=tried)
        for key, form in forms.items():
            if found.draft.forms.get(key) is form:
                self._forms.setdefault(key, []).append(form)
        return found

    def _widened(
        self, attempt: Try, loose: Draft, narrow: Mapping[str, Form], forms: Mapping[str, Form], found: Written
    ) -> Written:
        """Let the weights that matter most stay wider: as many as fit, or else as few as the tolerance needs."""
        weights = [weight for weight in weights_of(loose) if weight.key in forms]
        wider = {key: list(reversed(self._forms.get(key, []))) for key in forms}
        distances = self._distances(loose, found, weights)
        order = spending.upgrades(weights, forms, wider, distances)
        if self.room_bytes is not None:
            spare = self.room_bytes - found.size
            for _ in range(2):  # the graph grows or shrinks with the forms: what it came to is taken off
                taken = spending.affordable(order, spare)
                if not taken:
                    break
                spent = attempt(replace(loose, forms=spending.applied(narrow, taken)))
                excess = spent.size - self.room_bytes
                if excess <= 0:
                    if not spent.objection:
                        self.attempts.discard(found)
                        return spent
                    self.attempts.discard(spent)
                    break
                self.attempts.discard(spent)
                spare -= excess
        return self._least_widened(attempt, loose, narrow, order, found) if found.objection else found

    def _least_widened(
        self,
        attempt: Try,
        loose: Draft,
        narrow: Mapping[str, Form],
        order: Sequence[spending.Upgrade],
        found: Written,
    ) -> Written:
        """Undo the rung for as few bytes as bring the answers back within the tolerance.

        How far the answers may move is not known as a distance, so it is searched for: all of it is too far, and less
        than the least weight moves them by is to undo the rung.
        """
        won = [upgrade.won for upgrade in order if upgrade.won > 0]
        least, most = min(won, default=0.0), sum(won)
        best: Written | None = None
        held: set[str] = set()
        kept: dict[frozenset[spending.Upgrade], bool] = {}  # whether what was tried kept the tolerance
        while len(kept) < _ROUNDS and most > _CLOSE * least:
            borne = sqrt(least * most)
            needed = spending.needed(order, borne)
            taken = frozenset(needed)
            if self._hardly_saves(found.size + sum(upgrade.extra_bytes for upgrade in needed)):
                least = borne
                continue
            if taken not in kept:
                tried = attempt(replace(loose, forms=spending.applied(narrow, needed)))
                kept[taken] = not tried.objection
                if tried.objection:
                    self.attempts.discard(tried)
                else:
                    if best is not None:
                        self.attempts.discard(best)
                    best, held = tried, {upgrade.key for upgrade in needed}
            if kept[taken]:
                least = borne
            else:
                most = borne
        if best is None:
            return found
        self.attempts.discard(found)
        self._held |= held
        return best

    def _hardly_saves(self, size: int) -> bool:
        now = self.attempts.best.size
        return now - size < _WORTH_SPENDING * now

    def _distances(self, loose: Draft, found: Written, weights: Sequence[Weight]) -> Mapping[str, float]:
        """Return how much each weight matters, all alike where that cannot be measured."""
        wide = self.attempts.write(replace(loose, forms={}))
        try:
            moved = sensitivity.measure(wide.path, found.path, weights, self.attempts.evidence.main)
        except ModelError:
            return dict.fromkeys((weight.key for weight in weights), 1.0)
        finally:
            self.attempts.discard(wide)
        least = min(filter(None, moved.values()), default=1.0)
        return {key: distance or _UNSEEN * least for key, distance in moved.items()}
