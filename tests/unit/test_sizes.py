from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import InputError
from servegraph.machines.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0 B", 0),
        ("900B", 900),
        ("1000", 1000),
        ("123456", 123_456),
        ("123456 B", 123_456),
        ("500MB", 500_000_000),
        ("500 mb", 500_000_000),
        ("500M", 500_000_000),
        ("1.5GiB", 1_610_612_736),
        ("2Gi", 2_147_483_648),
        (" 10GB ", 10_000_000_000),
        ("1 kB", 1000),
        ("1KiB", 1024),
        (".5GB", 500_000_000),
        ("0.0000000001TB", 100),
        ("1.1MB", 1_100_000),
    ],
)
def test_sizes_as_people_write_them(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "MB", "-1", "1e9", "1 000", "5XB", "10 GBs", "1.GB", "nan", "\u0661GB", "iB", "9" * 400]
)
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_size(text)
    assert caught.value.code == "BAD_SIZE"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("7.5", "7.5GB"),
        ("7", "7GB"),
        ("500", "500MB"),
        ("999", "999MB"),
        ("1500.5", "1500.5MB"),
        ("0", ""),
        ("7.5B", ""),
    ],
)
def test_a_forgotten_unit_is_asked_for(text: str, meant: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_size(text)
    assert caught.value.code == "BAD_SIZE"
    assert (f"Did you mean {meant}?" in caught.value.fix) if meant else ("Did you mean" not in caught.value.fix)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1001, "1.01 kB"),
        (74_567, "74.6 kB"),
        (500_000_000, "500 MB"),
        (500_000_001, "501 MB"),
        (999_999, "1.00 MB"),
        (10_000_000_000, "10.0 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_three_digits_rounded_up(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(st.integers(0, 10**15))
def test_what_is_shown_is_never_less_and_hardly_more(size_bytes: int) -> None:
    shown = parse_size(format_size(size_bytes))
    assert size_bytes <= shown <= size_bytes * 1.01
