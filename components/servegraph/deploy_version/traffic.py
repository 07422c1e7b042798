"""How traffic moves from one version to another: pure arithmetic on shares in percent that sum to 100."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from servegraph.errors import InputError

Version = TypeVar("Version", str, int)


def check_steps(steps: tuple[int, ...], final: int) -> None:
    """Refuse steps that do not rise, or go beyond the final share.

    Raises:
        InputError: they do not (code `BAD_TRAFFIC_STEPS`).
    """
    rising = all(0 < before < after for before, after in zip((0, *steps), steps, strict=False) if before)
    if not rising or any(not 0 < step <= 100 for step in steps) or (steps and steps[-1] > final):
        raise InputError(
            f"The traffic steps {', '.join(map(str, steps))} do not rise from above 0 to at most {final}.",
            code="BAD_TRAFFIC_STEPS",
            fix="Give rising percentages like 10,50,100; the last is at most the share that --traffic gives.",
        )


def rising(now: int, final: int, steps: Iterable[int]) -> tuple[int, ...]:
    """Return the shares that a version with `now` percent still goes through, `final` last."""
    if now >= final:
        return () if now == final else (final,)
    return (*(step for step in steps if now < step < final), final)


def shifted(shares: Mapping[Version, int], key: Version, percent: int) -> dict[Version, int]:
    """Return `shares` with `percent` for `key`; the others keep their proportions in what is left.

    Where no other has any, `key` keeps 100 and nothing can be given back: the result is then `{key: 100}`, or
    empty for 0. Shares are whole percents that sum to 100; zeros stay in, they are shares too.
    """
    others = {name: share for name, share in shares.items() if name != key}
    total = sum(others.values())
    if not total:
        zeros = dict.fromkeys(others, 0)
        return {**zeros, key: 100} if percent else {}
    left = 100 - percent
    exact = {name: share * left / total for name, share in others.items()}
    whole = {name: int(share) for name, share in exact.items()}
    # The largest remainders get what rounding down left over.
    by_remainder = sorted(exact, key=lambda name: (whole[name] - exact[name], name))
    for name in by_remainder[: left - sum(whole.values())]:
        whole[name] += 1
    return {**whole, key: percent}
