"""Which weights stay wider than a rung would make them: bytes go where they buy the most agreement.

How far the answers move with one weight is taken to be independent of how far they move with another. Then the squares
of the distances add up, and of one weight the square grows with the noise of its form.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from servegraph.rewriting.contents import size_bytes
from servegraph.rewriting.forms import Form
from servegraph.rewriting.weights import Weight

Forms = Mapping[str, Form]


@dataclass(frozen=True)
class Upgrade:
    """One weight stored one form wider, its own where `form` is None; `won` is the square distance it takes away."""

    key: str
    form: Form | None
    extra_bytes: int
    won: float


def upgrades(
    weights: Sequence[Weight],
    narrow: Forms,
    wider: Mapping[str, Sequence[Form]],
    distances: Mapping[str, float],
) -> list[Upgrade]:
    """Return all upgrades, those that buy the most for a byte first.

    `wider` are the forms of each weight between its own and the narrow one, the narrowest first; `distances` are how
    far the answers move when a weight has its narrow form.
    """
    queue: list[tuple[float, str, int, Upgrade]] = []
    ways = {w.key: list(_steps(w, narrow[w.key], wider.get(w.key, ()), distances)) for w in weights if w.key in narrow}
    for key, steps in ways.items():
        if steps:
            heapq.heappush(queue, (-steps[0][0], key, 0, steps[0][1]))
    order = []
    while queue:
        _, key, number, upgrade = heapq.heappop(queue)
        order.append(upgrade)
        if number + 1 < len(ways[key]):
            worth, following = ways[key][number + 1]
            heapq.heappush(queue, (-worth, key, number + 1, following))
    return order


def _steps(
    weight: Weight, narrow: Form, wider: Sequence[Form], distances: Mapping[str, float]
) -> Iterator[tuple[float, Upgrade]]:
    """Yield each upgrade of a weight with what it is worth: distance won per byte.

    Not the square of it, though squares are what adds up: with that the one trained net whose weights differ enough
    (benchmarks: digits-mobilenetv2) lost more within a budget near int4, and hardly less within larger ones.
    """
    per_noise = distances.get(weight.key, 0.0) / narrow.noise**0.5 if narrow.noise else 0.0
    now, now_bytes = narrow.noise, narrow.stored_bytes
    own = (None, 0.0, size_bytes(weight.content))
    for form, noise, stored in [*((f, f.noise, f.stored_bytes) for f in wider), own]:
        if stored > now_bytes:
            extra = stored - now_bytes
            worth = per_noise * (now**0.5 - noise**0.5) / extra
            yield worth, Upgrade(weight.key, form, extra, per_noise**2 * (now - noise))
            now, now_bytes = noise, stored


def applied(narrow: Forms, taken: Sequence[Upgrade]) -> dict[str, Form]:
    """Return the forms with these upgrades."""
    forms = dict(narrow)
    for upgrade in taken:
        if upgrade.form is None:
            forms.pop(upgrade.key, None)
        else:
            forms[upgrade.key] = upgrade.form
    return forms


def affordable(order: Sequence[Upgrade], spare_bytes: int) -> list[Upgrade]:
    """Return the upgrades that fit into the spare bytes, in order; a weight's later ones need its earlier ones."""
    taken, closed = [], set()
    for upgrade in order:
        if upgrade.key in closed or upgrade.extra_bytes > spare_bytes:
            closed.add(upgrade.key)
            continue
        taken.append(upgrade)
        spare_bytes -= upgrade.extra_bytes
    return taken


def needed(order: Sequence[Upgrade], borne: float) -> list[Upgrade]:
    """Return the upgrades without which the answers would move by more than `borne`, a square distance.

    What wins the least for a byte is done without first. What alone wins more than is left is needed, so a large weight
    that the answers do not bear in its narrow form is no reason to widen all the others before it.
    """
    taken: list[Upgrade] = []
    closed: set[str] = set()
    for upgrade in reversed(order):
        if upgrade.key in closed or upgrade.won > borne:
            closed.add(upgrade.key)
            taken.append(upgrade)
        else:
            borne -= upgrade.won
    return taken[::-1]
