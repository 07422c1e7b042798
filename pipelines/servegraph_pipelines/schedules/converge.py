"""Make what a scheduler has equal to what is declared, whatever it has; never two schedules for one name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from servegraph.errors import InputError, Refusal, ServegraphError
from servegraph_pipelines.schedules.spec import Schedule

Outcome = Literal["created", "updated", "replaced", "unchanged", "paused", "resumed", "deleted", "absent"]


@dataclass(frozen=True)
class Found:
    """A schedule as the scheduler has it. `content` is what it runs, `timing` when: values to compare."""

    id: str
    name: str
    content: Any
    timing: Any
    paused: bool
    body: Any = None  # to make it again where its replacement is refused
    next_run: str = ""


@dataclass(frozen=True)
class PastRun:
    """A run that a schedule started; `failed` is None while it goes on."""

    run: str
    failed: bool | None
    message: str = ""


class Scheduler(Protocol):
    """What keeps schedules: a service, or this machine."""

    can_patch_timing: bool

    def content(self, schedule: Schedule) -> Any:
        """Return what the schedule shall run, in the form that `find` gives."""

    def timing(self, schedule: Schedule) -> Any:
        """Return when it shall run, in the form that `find` gives."""

    def find(self, name: str) -> list[Found]:
        """Return all schedules of that name, oldest first."""

    def create(self, schedule: Schedule, *, paused: bool) -> None:
        """Make it. Raises what the service raises."""

    def patch(self, found: Found, schedule: Schedule) -> None:
        """Change when it runs."""

    def remake(self, found: Found) -> None:
        """Make a schedule again as it was found."""

    def runs(self, found: Found) -> list[PastRun]:
        """Return the runs that it started since it was made or resumed, newest first, about a hundred at most."""

    def delete(self, found: Found) -> None:
        """Remove it; gone already is fine."""

    def pause(self, found: Found) -> None:
        """Start no further runs."""

    def resume(self, found: Found, schedule: Schedule) -> None:
        """Start runs again from now on; those missed only where the schedule catches up."""


@dataclass(frozen=True)
class Change:
    """What apply did with one schedule, or would do; `why` names what differs."""

    name: str
    engine: str
    outcome: Outcome
    why: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"name": self.name, "engine": self.engine, "outcome": self.outcome, "why": list(self.why)}


def require_possible(scheduler: Scheduler, schedule: Schedule) -> None:
    """Refuse what the scheduler cannot run, or not at such times; nothing is sent. Raises `InputError`."""
    scheduler.content(schedule)
    scheduler.timing(schedule)


def plan(scheduler: Scheduler, schedule: Schedule) -> Change:
    """Return what `apply` would do now; nothing is changed."""
    require_possible(scheduler, schedule)
    found = scheduler.find(schedule.name)
    if not found:
        return Change(schedule.name, schedule.engine, "created", ("there is none of that name.",))
    why = _differences(scheduler, schedule, found[-1])
    if len(found) > 1:
        why.append(f"there are {len(found)} of that name.")
    paused = _paused_change(schedule, found[-1])
    if not why:
        return Change(schedule.name, schedule.engine, paused or "unchanged", ("it is declared so.",) if paused else ())
    only_timing = len(found) == 1 and scheduler.content(schedule) == found[0].content and scheduler.can_patch_timing
    return Change(schedule.name, schedule.engine, "updated" if only_timing else "replaced", tuple(why))


def apply(scheduler: Scheduler, schedule: Schedule) -> Change:
    """Make it so. A schedule that was paused by hand stays paused, unless the file says otherwise."""
    change = plan(scheduler, schedule)
    found = scheduler.find(schedule.name)
    newest = found[-1] if found else None
    paused = schedule.paused if schedule.paused is not None else bool(newest and newest.paused)
    if change.outcome == "updated" and newest is not None:
        scheduler.patch(newest, schedule)
        if paused != newest.paused:
            _set_paused(scheduler, newest, schedule, paused=paused)
    elif change.outcome in ("paused", "resumed") and newest is not None:
        _set_paused(scheduler, newest, schedule, paused=paused)
    elif change.outcome in ("created", "replaced"):
        _replace(scheduler, schedule, found, paused=paused)
    return change


def set_paused(scheduler: Scheduler, schedule: Schedule, *, paused: bool) -> Change:
    """Pause or resume what is there under the name. Raises `InputError` (code `NO_SCHEDULE`) where nothing is."""
    found = scheduler.find(schedule.name)
    if not found:
        fix = "Make it: `servegraph schedule apply FILE`."
        raise InputError(f"There is no schedule {schedule.name}.", code="NO_SCHEDULE", fix=fix)
    changed = [one for one in found if one.paused != paused]
    for one in changed if paused else changed[-1:]:
        _set_paused(scheduler, one, schedule, paused=paused)
    outcome: Outcome = "unchanged" if not changed else "paused" if paused else "resumed"
    return Change(schedule.name, schedule.engine, outcome)


def delete(scheduler: Scheduler, schedule: Schedule) -> Change:
    """Remove all schedules of the name."""
    found = scheduler.find(schedule.name)
    for one in found:
        scheduler.delete(one)
    return Change(schedule.name, schedule.engine, "deleted" if found else "absent")


@contextlib.contextmanager
def put_back(scheduler: Scheduler, found: Sequence[Found]) -> Iterator[None]:
    """Make the newest of `found` again where the block, which removes them to make another, is refused or cut off.

    Raises:
        Refusal: it cannot be made again (code `SCHEDULE_GONE`).
    """
    try:
        yield
    except BaseException as error:
        newest = found[-1] if found else None
        try:
            if newest is not None and not scheduler.find(newest.name):
                scheduler.remake(newest)
        except ServegraphError as exc:
            assert newest is not None
            said = error.message if isinstance(error, ServegraphError) else f"{type(error).__name__}."
            was = "paused" if newest.paused else "active"
            raise Refusal(
                f"The schedule {newest.name}, which was {was}, is gone: {said} It cannot be made again: {exc.message}",
                code="SCHEDULE_GONE",
                fix=f"Apply it once that is mended{', with `paused: true`' if newest.paused else ''}.",
            ) from error
        raise


def _differences(scheduler: Scheduler, schedule: Schedule, found: Found) -> list[str]:
    pairs = (
        ("", scheduler.content(schedule), found.content),
        ("", scheduler.timing(schedule), found.timing),
    )
    return [line for at, wanted, have in pairs for line in differences(wanted, have, at)]


def differences(wanted: Any, have: Any, at: str = "") -> list[str]:
    """Return what differs between two JSON values, a line each, by path."""
    if isinstance(wanted, dict) and isinstance(have, dict):
        keys = sorted({*wanted, *have})
        return [
            line
            for key in keys
            for line in differences(wanted.get(key), have.get(key), f"{at}.{key}" if at else str(key))
        ]
    return [] if wanted == have else [f"{at}: {_short(have)} → {_short(wanted)}"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _paused_change(schedule: Schedule, found: Found) -> Outcome | None:
    if schedule.paused is None or schedule.paused == found.paused:
        return None
    return "paused" if schedule.paused else "resumed"


def _set_paused(scheduler: Scheduler, found: Found, schedule: Schedule, *, paused: bool) -> None:
    if paused:
        scheduler.pause(found)
    else:
        scheduler.resume(found, schedule)


def _replace(scheduler: Scheduler, schedule: Schedule, found: Sequence[Found], *, paused: bool) -> None:
    """Remove what is there, then make the new one; where that is refused or cut off, what was there is made again.

    In this order there are never two. Two applies at once may each make one: all but the oldest are removed.
    """
    with put_back(scheduler, found):
        for one in found:
            scheduler.delete(one)
        scheduler.create(schedule, paused=paused)
    for extra in scheduler.find(schedule.name)[1:]:
        scheduler.delete(extra)
