"""The page of a ladder and its picture: what lies where, which point is the chosen one, and that the sizes add up."""

from dataclasses import replace

import pytest

from servegraph.optimize.html import render
from servegraph.optimize.picture import HEIGHT, WIDTH, Picture, draw
from servegraph.optimize.result import Optimized, Step


def _drawn(*steps: Step, budget: int | None = None) -> Picture | None:
    return draw(Optimized(1_000_000, steps[-1].bytes, budget, steps, 8, False, 0, "", ()))


def test_smaller_is_further_left_and_less_agreement_lower() -> None:
    picture = _drawn(
        Step("strip", "", True, 500_000, agreement=1.0),
        Step("halve", "", True, 250_000, agreement=0.99),
        Step("quarter", "", False, 125_000, agreement=0.5),
        budget=300_000,
    )
    assert picture is not None
    original, strip, halve, quarter = picture.points
    assert WIDTH > original.x > strip.x > halve.x > quarter.x > 0
    assert original.y == strip.y == 0 < halve.y < quarter.y == HEIGHT
    assert original.x - strip.x == pytest.approx(strip.x - halve.x, abs=0.2)
    assert [point.label for point in picture.points if point.chosen] == ["halve"]
    assert picture.budget is not None
    assert halve.x < picture.budget < strip.x


def test_rungs_in_one_place_share_a_point() -> None:
    picture = _drawn(
        Step("strip", "", True, 500_000, agreement=1.0),
        Step("share", "", False, 500_000, reason="nothing to do"),
        Step("fold", "", True, 499_000, agreement=1.0),
    )
    assert picture is not None
    assert [point.label for point in picture.points] == ["original", "strip, fold"]


def test_no_picture_of_a_model_that_was_not_asked() -> None:
    assert _drawn(Step("strip", "", False, 500_000, reason="no evidence")) is None


def test_what_the_golden_requests_add_is_in_the_table_and_the_bars() -> None:
    step = Step("strip", "", True, 11_000, agreement=1.0)
    result = Optimized(33_000, 14_000, None, (step,), 8, False, 16, "", (), golden_bytes=3_000)
    page = render(result)
    assert page.count("golden requests") == page.count("3.00 kB") == 2
    assert "golden requests" not in render(replace(result, golden_requests=0, golden_bytes=0))
