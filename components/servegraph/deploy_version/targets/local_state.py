"""How the state of a model on this machine changes: values in, values out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from servegraph.deploy_version.traffic import shifted
from servegraph.serve.state import ModelState, VersionRecord

# TF Serving's own convention for the label of the version that users should get.
STABLE = "stable"


def switched(
    state: ModelState, version: int, record: VersionRecord, labels: Iterable[str], keep: int, share: int = 100
) -> ModelState:
    """Return the state in which `version` has `share` percent of the traffic and no more than `keep` are left."""
    had = state.traffic.get(version, 0)
    stable = {STABLE: version} if share == 100 else {}
    traffic = shifted(state.traffic, version, share)
    after = replace(
        state,
        versions={**state.versions, version: record},
        traffic={number: percent for number, percent in traffic.items() if percent},
        previous=state.live if share and not had and state.live is not None else state.previous,
        rolled_back_from=state.rolled_back_from if had or not share else None,
        labels={**state.labels, **stable, **dict.fromkeys(labels, version)},
        next_version=max(state.next_version, version + 1),
        unfinished=tuple(number for number in state.unfinished if number != version),
    )
    return after.without(surplus(after, keep, version))


def surplus(state: ModelState, keep: int, just_made: int | None = None) -> tuple[int, ...]:
    """Return the versions beyond the `keep` most needed: with traffic, previous, labelled, newest.

    What was just made is never among them, even if it has no traffic.
    """
    labelled = set(state.labels.values())

    def weight(number: int) -> tuple[bool, bool, bool, bool, int]:
        needed = (state.traffic.get(number, 0) > 0, number == just_made, number == state.previous)
        return (*needed, number in labelled, number)

    ranked = sorted(state.versions, key=weight, reverse=True)
    return tuple(sorted(n for n in ranked[keep:] if not state.traffic.get(n) and n != just_made))


def rolled_back(state: ModelState, to: int) -> ModelState:
    """Return the state in which version `to` has all traffic. Going to a newer version is no rollback."""
    others = [number for number in state.traffic if number != to]
    was = max(others, key=lambda number: state.traffic[number], default=state.live)
    return replace(
        state,
        traffic={to: 100},
        previous=was,
        rolled_back_from=was if was is not None and to < was else None,
        labels={**state.labels, STABLE: to},
    )


def announced(state: ModelState, version: int) -> ModelState:
    """Return the state that says that the directory of `version` is about to appear, no version yet."""
    return replace(
        state,
        next_version=max(state.next_version, version + 1),
        unfinished=tuple(sorted({*state.unfinished, version})),
    )


def finished(state: ModelState, removed: Iterable[int]) -> ModelState:
    """Return the state after the directories `removed` are gone."""
    gone = set(removed)
    return replace(state, unfinished=tuple(number for number in state.unfinished if number not in gone))
