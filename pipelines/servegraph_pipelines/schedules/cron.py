"""Cron lines in the forms of those that read them: five fields, six with seconds first, a systemd calendar."""

from __future__ import annotations

import re
from dataclasses import dataclass

from servegraph.errors import InputError

_MONTHS = dict(zip("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), range(1, 13), strict=True))  # noqa: SIM905
_DAYS = dict(zip("SUN MON TUE WED THU FRI SAT".split(), range(7), strict=True))  # noqa: SIM905
_DAY_NAMES = [name.capitalize() for name in _DAYS]
# One row a field: its name, its least and its greatest value, the names it may have.
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of a month
_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?")


@dataclass(frozen=True)
class Cron:
    """A cron line: the values of each field, None where it is `*`. Sunday is 0."""

    second: tuple[int, ...]
    minute: tuple[int, ...] | None
    hour: tuple[int, ...] | None
    day: tuple[int, ...] | None
    month: tuple[int, ...] | None
    weekday: tuple[int, ...] | None

    def five(self) -> str:
        """Return it in five fields, as crontab and Vertex AI have it.

        Raises:
            InputError: it has seconds (code `NO_SECONDS`).
        """
        if self.second != (0,):
            fix = "Leave the field of seconds out, or make it 0."
            raise InputError("This engine starts runs at whole minutes only.", code="NO_SECONDS", fix=fix)
        return " ".join(_text(field) for field in self._without_seconds())

    def six(self) -> str:
        """Return it in six fields, seconds first, as Kubeflow Pipelines has it."""
        return " ".join(_text(field) for field in (self.second, *self._without_seconds()))

    def calendars(self, time_zone: str) -> tuple[str, ...]:
        """Return it as `OnCalendar` lines of systemd: two where cron takes either of a day and a weekday."""
        day, month = _text(self.day), _text(self.month)
        time = ":".join(_two_digits(field) for field in (self.hour, self.minute, self.second))
        by_day = f"*-{month}-{day} {time} {time_zone}"
        if self.weekday is None:
            return (by_day,)
        names = ",".join(_DAY_NAMES[number] for number in self.weekday)
        by_weekday = f"{names} *-{month}-* {time} {time_zone}"
        return (by_weekday,) if self.day is None else (by_day, by_weekday)

    def _without_seconds(self) -> tuple[tuple[int, ...] | None, ...]:
        return (self.minute, self.hour, self.day, self.month, self.weekday)


def parse(text: str) -> Cron:
    """Return the cron line of five fields, or of six with seconds first.

    Raises:
        InputError: it is none (code `BAD_CRON`).
    """
    parts = text.split()
    if len(parts) not in (5, 6):
        fix = "Write five fields, like `0 3 * * MON`, or six with seconds first."
        raise InputError(f"The cron line {text!r} has {len(parts)} fields.", code="BAD_CRON", fix=fix)
    values = [_values(part, row) for part, row in zip(parts, _FIELDS[-len(parts) :], strict=True)]
    second = values.pop(0) if len(parts) == 6 else (0,)
    minute, hour, day, month, weekday = values
    if weekday is not None:
        weekday = tuple(sorted({number % 7 for number in weekday}))
        weekday = None if len(weekday) == 7 else weekday
    if (
        day
        and month
        and weekday is None
        and not any(number <= _LONGEST[month_ - 1] for number in day for month_ in month)
    ):
        raise InputError(f"The day of the cron line {text!r} never comes.", code="BAD_CRON", fix="Write one that does.")
    return Cron(second or tuple(range(60)), minute, hour, day, month, weekday)


def _values(text: str, row: tuple[str, int, int, dict[str, int]]) -> tuple[int, ...] | None:
    if text in ("*", "?", "*/1"):
        return None
    name, low, high, _ = row
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if not match:
            raise _bad(text, row)
        first, last, step = match.groups()
        start = low if first is None else _number(first, text, row)
        # `5/10` starts at 5 and goes on; `5` alone is 5; the last day of the week is a Sunday again.
        open_end = 6 if name == "day of the week" else high
        end = _number(last, text, row) if last else start if first and not step else open_end
        if start > end or (step and not int(step)):
            raise _bad(text, row)
        found |= set(range(start, end + 1, int(step or 1)))
    return tuple(sorted(found))


def _number(text: str, field: str, row: tuple[str, int, int, dict[str, int]]) -> int:
    _, low, high, names = row
    number = names.get(text.upper()) if not text.isdecimal() else int(text)
    if number is None or not low <= number <= high:
        raise _bad(field, row)
    return number


def _bad(text: str, row: tuple[str, int, int, dict[str, int]]) -> InputError:
    name, low, high, _ = row
    fix = f"It goes from {low} to {high}: a number, a range like 1-5, a list, or */N."
    return InputError(f"{text!r} is no {name} of a cron line.", code="BAD_CRON", fix=fix)


def _text(values: tuple[int, ...] | None) -> str:
    return "*" if values is None else ",".join(map(str, values))


def _two_digits(values: tuple[int, ...] | None) -> str:
    return "*" if values is None else ",".join(f"{value:02d}" for value in values)
