"""How the state of a model on this machine changes: values in, values out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from servegraph.serve.state import ModelState, VersionRecord

# TF Serving's own convention for the label of the version that users should get.
STABLE = "stable"


def switched(state: ModelState, version: int, record: VersionRecord, labels: Iterable[str], keep: int) -> ModelState:
    """Return the state in which `version` has all traffic and no more than `keep` versions are left."""
    after = replace(
        state,
        versions={**state.versions, version: record},
        traffic={version: 100},
        previous=state.previous if state.live == version else state.live,
        rolled_back_from=state.rolled_back_from if state.live == version else None,
        labels={**state.labels, STABLE: version, **dict.fromkeys(labels, version)},
        next_version=max(state.next_version, version + 1),
        unfinished=tuple(number for number in state.unfinished if number != version),
    )
    return after.without(surplus(after, keep))


def surplus(state: ModelState, keep: int) -> tuple[int, ...]:
    """Return the versions beyond the `keep` most needed: with traffic, previous, labelled, newest."""
    labelled = set(state.labels.values())

    def weight(number: int) -> tuple[bool, bool, bool, int]:
        return (state.traffic.get(number, 0) > 0, number == state.previous, number in labelled, number)

    ranked = sorted(state.versions, key=weight, reverse=True)
    return tuple(sorted(number for number in ranked[keep:] if not state.traffic.get(number)))


def rolled_back(state: ModelState, to: int) -> ModelState:
    """Return the state in which version `to` has all traffic. Going to a newer version is no rollback."""
    live = state.live
    return replace(
        state,
        traffic={to: 100},
        previous=live,
        rolled_back_from=live if live is not None and to < live else None,
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
