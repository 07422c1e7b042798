"""The ladder as a page."""

from __future__ import annotations

from servegraph.optimize.picture import HEIGHT, WIDTH, draw
from servegraph.optimize.result import Optimized
from servegraph.pages.render import render as render_page


def render(result: Optimized) -> str:
    """Return one self-contained HTML page: sizes as bars, size against agreement, the steps and their evidence."""
    picture = draw(result)
    return render_page(
        "servegraph.optimize", "report.html.jinja", result=result, picture=picture, width=WIDTH, height=HEIGHT
    )
