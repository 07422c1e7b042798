"""A cron line read in another time zone means the same moments, found by trying every minute, or there is none."""

import functools
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from servegraph.errors import InputError
from servegraph_pipelines.schedules.cron import Cron, parse
from servegraph_pipelines.schedules.time_zones import in_zone
from servegraph_pipelines.schedules.timers import zone_of

START = datetime(2026, 2, 20, tzinfo=timezone.utc)  # over the end of a short month


@functools.cache
def clock(zone: str) -> list[tuple[int, int, int, int, int]]:
    """What a clock in the zone shows at every minute of two weeks: minute, hour, day, month, weekday."""
    shown = [(START + timedelta(minutes=minute)).astimezone(ZoneInfo(zone)) for minute in range(14 * 24 * 60)]
    return [(t.minute, t.hour, t.day, t.month, (t.weekday() + 1) % 7) for t in shown]


def moments(cron: Cron, zone: str) -> list[int]:
    """The minutes since START at which the line fires in the zone."""
    every = range(60)
    minutes, hours, months = set(cron.minute or every), set(cron.hour or every), set(cron.month or every)
    days, weekdays = set(cron.day or every), set(cron.weekday if cron.weekday is not None else every)
    either = cron.day is not None and cron.weekday is not None
    return [
        number
        for number, (minute, hour, day, month, weekday) in enumerate(clock(zone))
        if minute in minutes
        and hour in hours
        and month in months
        and ((day in days or weekday in weekdays) if either else (day in days and weekday in weekdays))
    ]


@pytest.mark.parametrize("there", ["UTC", "Asia/Kathmandu", "Etc/GMT+11"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Asia/Tokyo", "America/Phoenix", "Etc/GMT-14"])
@pytest.mark.parametrize(
    "line",
    [
        *("0 3 * * MON", "30 23 * * *", "0 * * * *", "*/15 * * * *", "15 9-17 * * 1-5", "0 12 1 * *"),
        *("0 12 1 3 *", "0 12 1 * SUN", "0,40 8 * * *", "0 6 * 3 *", "*/7 * * * 2", "5 0,23 * * 6"),
    ],
)
def test_it_means_the_same_moments_or_is_refused(line, zone, there):
    cron = parse(line)
    try:
        moved = in_zone(cron, zone, there, START)
    except InputError as error:
        assert error.code == "NOT_FOR_ENGINE"
        assert zone != there
        return
    assert moments(moved, there) == moments(cron, zone)


@pytest.mark.parametrize(
    ("line", "zone", "there", "moved"),
    [
        ("0 3 * * MON", "Asia/Tokyo", "UTC", "0 18 * * 0"),
        ("0 20 * * MON,SUN", "America/Phoenix", "UTC", "0 3 * * 1,2"),
        ("30 * * * *", "Asia/Kolkata", "UTC", "0 * * * *"),
        ("*/30 * * * *", "Asia/Kolkata", "UTC", "0,30 * * * *"),
        ("0 12 1 * *", "Asia/Tokyo", "UTC", "0 3 1 * *"),
        ("0 3 * * *", "Europe/Berlin", "Europe/Berlin", "0 3 * * *"),
        ("0 3 * * *", "Europe/Berlin", "Europe/Paris", "0 3 * * *"),  # their clocks change at the same moment
        ("0 3 * * *", "Europe/Berlin", "Europe/London", "0 2 * * *"),
    ],
)
def test_what_can_be_said_is_said(line, zone, there, moved):
    assert in_zone(parse(line), zone, there, START).five() == moved


@pytest.mark.parametrize(
    ("line", "zone", "there", "word"),
    [
        ("0 3 * * *", "Europe/Berlin", "UTC", "change their clocks"),
        ("0 3 * * *", "America/New_York", "America/Chicago", "change their clocks"),  # an hour apart
        ("0 3 1 * *", "Asia/Tokyo", "UTC", "Days"),
        ("0 * * * MON", "Asia/Tokyo", "UTC", "Days"),
        ("0,40 8 * * *", "Asia/Kolkata", "UTC", "Days"),
    ],
)
def test_what_cannot_is_refused(line, zone, there, word):
    with pytest.raises(InputError, match=word):
        in_zone(parse(line), zone, there, START)


def test_the_zone_of_a_machine_is_what_its_clock_is_a_link_to_or_else_what_it_names(tmp_path: Path) -> None:
    assert zone_of(tmp_path) == "UTC"
    (tmp_path / "localtime").write_bytes(b"TZif2")  # a copy, as some images have
    assert zone_of(tmp_path) == "UTC"
    (tmp_path / "timezone").write_text("Europe/Berlin\n")
    assert zone_of(tmp_path) == "Europe/Berlin"
    (tmp_path / "localtime").unlink()
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Asia/Kolkata")
    assert zone_of(tmp_path) == "Asia/Kolkata"
