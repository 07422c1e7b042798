"""The page of a ladder and its picture: what lies where, which point is the chosen one, and that the sizes add up."""

from dataclasses import replace

import pytest

from servegraph.optimize.html import render
from servegraph.optimize.picture import HEIGHT, WIDTH, Picture, draw
from servegraph.optimize.result import Optimized, Step
from servegraph_pipelines.cli.cmd_optimize import _show


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
    page = render(result, "census")
    assert page.count("golden requests") == page.count("3.00 kB") == 2
    assert "golden requests" not in render(replace(result, golden_requests=0, golden_bytes=0), "census")


@pytest.mark.parametrize(("before", "after"), [(398_000, 318_000), (1_000_000, 125_000), (343, 340), (9_990, 9_980)])
def test_sizes_can_be_read_however_close_they_are(before: int, after: int) -> None:
    picture = draw(
        Optimized(before, after, None, (Step("strip", "", True, after, agreement=1.0),), 8, False, 0, "", ())
    )
    assert picture is not None
    assert 2 <= len(picture.sizes) <= 8
    assert all(0 <= x <= WIDTH for x, _ in picture.sizes)


def test_the_page_names_the_model_and_explains_hollow_points_where_there_are_any() -> None:
    step = Step("strip", "", True, 11_000, agreement=1.0)
    result = Optimized(33_000, 11_000, 20_000, (step,), 8, False, 0, "", ())
    page = render(result, "models/census")
    assert "<title>models/census · servegraph optimize</title>" in page
    assert "<h1>models/census: 33.0 kB → 11.0 kB</h1>" in page
    assert "Hollow" not in page
    assert page.index('class="limit"') < page.index(">original</text>")  # the labels lie on the line
    undone = Step("halve", "", False, 6_000, agreement=0.5)
    assert "Hollow" in render(replace(result, steps=(step, undone)), "models/census")


def test_the_table_of_a_terminal_has_the_golden_requests(capsys: pytest.CaptureFixture[str]) -> None:
    step = Step("strip", "", True, 11_000, agreement=1.0, max_abs_diff=0.0)
    _show(Optimized(33_000, 14_000, None, (step,), 8, False, 16, "", (), golden_bytes=3_000))
    assert "golden requests        3.00 kB" in capsys.readouterr().out


def test_a_rung_that_is_kept_in_part_says_what_all_of_it_would_come_to(capsys: pytest.CaptureFixture[str]) -> None:
    step = Step("quarter", "as int8", True, 11_000, agreement=1.0, full_bytes=6_000, full_agreement=0.97)
    result = Optimized(33_000, 11_000, 9_000, (step,), 8, False, 0, "", ())
    assert "all of them would reach 6.00 kB at agreement 0.9700" in render(result, "models/census")
    _show(result)
    assert "as int8: as many as the tolerance bears" in " ".join(capsys.readouterr().out.split())


def test_the_page_says_what_became_of_the_metric() -> None:
    step = Step("strip", "", True, 11_000, agreement=1.0)
    result = Optimized(33_000, 11_000, None, (step,), 8, False, 0, "", ())
    page = render(replace(result, metric_name="log_loss", metric_before=0.5, metric_after=0.51), "m")
    assert "8 samples. Log loss: 0.5000 → 0.5100." in page
    assert "→ 0." not in render(result, "m")
