"""Cron lines of one time zone for a scheduler that reads them in another: exact, or refused."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from servegraph.errors import InputError
from servegraph_pipelines.schedules.cron import Cron

_HOURS_AHEAD = 3 * 366 * 24  # in which the clocks of the two zones must keep their distance
_DAY = 24 * 60  # minutes


def in_zone(cron: Cron, zone: str, there: str, now: datetime | None = None) -> Cron:
    """Return the line that, read in the zone `there`, means the same moments as `cron` does in `zone`.

    Raises:
        InputError: there is none (code `NOT_FOR_ENGINE`): the distance of the clocks changes, or the days do not move
            as a line can say it.
    """
    if zone == there:
        return cron
    hour = (now or datetime.now(timezone.utc)).replace(minute=0, second=0, microsecond=0)
    shift = _distance(zone, there, hour)
    if shift is None:
        raise InputError(
            f"{zone} and {there} change their clocks on different days: no line in {there} keeps the hour of {zone}.",
            code="NOT_FOR_ENGINE",
            fix=f"Write the line in {there}, with time_zone: {there}; or take an engine that knows time zones.",
        )
    if shift == 0:
        return cron
    hours, minutes = cron.hour or range(24), cron.minute or range(60)  # a field is never empty
    moved = [divmod(60 * hour + minute + shift, _DAY) for hour in hours for minute in minutes]
    carries, times = {carry for carry, _ in moved}, {divmod(time, 60) for _, time in moved}
    new_hours, new_minutes = _sorted(hour for hour, _ in times), _sorted(minute for _, minute in times)
    carry = carries.pop() if len(carries) == 1 else None
    any_day = cron.day is None and cron.month is None
    if len(times) != len(new_hours) * len(new_minutes) or not (carry == 0 or any_day):
        raise _not_one_line(zone, there)
    if carry is None and cron.weekday is not None:
        raise _not_one_line(zone, there)
    weekday = _sorted((day + (carry or 0)) % 7 for day in cron.weekday) if cron.weekday is not None else None
    return replace(
        cron,
        minute=None if len(new_minutes) == 60 else new_minutes,
        hour=None if len(new_hours) == 24 else new_hours,
        weekday=weekday,
    )


@functools.cache
def _distance(zone: str, there: str, start: datetime) -> int | None:
    """Return the minutes from a clock in `zone` to one in `there`, None where they differ over the next years."""
    one, other = ZoneInfo(zone), ZoneInfo(there)
    found: set[timedelta] = set()
    for hour in range(_HOURS_AHEAD):
        moment = start + timedelta(hours=hour)
        here, away = moment.astimezone(one).utcoffset(), moment.astimezone(other).utcoffset()
        assert here is not None
        assert away is not None
        found.add(away - here)
    if len(found) > 1:
        return None
    return int(found.pop().total_seconds() // 60)


def _sorted(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(values)))


def _not_one_line(zone: str, there: str) -> InputError:
    return InputError(
        f"Days in {there} begin at another hour than in {zone}, and this cron line has days or hours that no single "
        f"line in {there} has.",
        code="NOT_FOR_ENGINE",
        fix=f"Write the line in {there}, with time_zone: {there}, or two schedules.",
    )
