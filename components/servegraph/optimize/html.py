"""The ladder as a page."""

from __future__ import annotations

from servegraph.optimize.picture import HEIGHT, WIDTH, draw
from servegraph.optimize.result import Optimized
from servegraph.pages.render import render as render_page


def render(result: Optimized, model: str) -> str:
    """Return one self-contained HTML page: sizes as bars, size against agreement, the steps and their evidence.

    `model` is what the original is called.
    """
    picture = draw(result)
    return render_page(
        "servegraph.optimize",
        "report.html.jinja",
        result=result,
        model=model,
        picture=picture,
        width=WIDTH,
        height=HEIGHT,
    )
