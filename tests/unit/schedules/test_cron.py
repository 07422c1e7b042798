"""Cron lines as each scheduler has them."""

import pytest

from servegraph.errors import InputError
from servegraph_pipelines.schedules.cron import parse


@pytest.mark.parametrize(
    ("text", "five", "six"),
    [
        ("0 3 * * MON", "0 3 * * 1", "0 0 3 * * 1"),
        ("*/15 * * * *", "0,15,30,45 * * * *", "0 0,15,30,45 * * * *"),
        ("5 4 1,15 jan-mar *", "5 4 1,15 1,2,3 *", "0 5 4 1,15 1,2,3 *"),
        ("0 0 * * 7", "0 0 * * 0", "0 0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6", "0 0 0 * * 0,5,6"),
        ("0 0 * * 0-7", "0 0 * * *", "0 0 0 * * *"),
        ("0 30 2 ? * *", "30 2 * * *", "0 30 2 * * *"),
        ("10/20 * * * *", "10,30,50 * * * *", "0 10,30,50 * * * *"),
    ],
)
def test_five_and_six_fields(text, five, six):
    assert parse(text).five() == five
    assert parse(text).six() == six
    assert parse(six) == parse(five)


def test_seconds_are_for_those_that_have_them():
    assert parse("30 0 3 * * *").six() == "30 0 3 * * *"
    with pytest.raises(InputError) as caught:
        parse("30 0 3 * * *").five()
    assert caught.value.code == "NO_SECONDS"


def test_a_day_or_a_weekday_are_two_calendars():
    assert parse("30 3 * * *").calendars("UTC") == ("*-*-* 03:30:00 UTC",)
    assert parse("0 9 * * 1-5").calendars("Europe/Berlin") == ("Mon,Tue,Wed,Thu,Fri *-*-* 09:00:00 Europe/Berlin",)
    assert parse("0 0 1 * SUN").calendars("UTC") == ("*-*-1 00:00:00 UTC", "Sun *-*-* 00:00:00 UTC")
    assert parse("*/30 * * 6 *").calendars("UTC") == ("*-6-* *:00,30:00 UTC",)


@pytest.mark.parametrize(
    "text",
    [
        *("", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *"),
        *(
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "1,,2 * * * *",
            "* * * FOO *",
            "-1 * * * *",
            "@daily",
            "0 0 31 2 *",
            "0 0 31 4,6 *",
        ),
    ],
)
def test_what_is_no_cron_line_is_refused(text):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert caught.value.code == "BAD_CRON"
