"""Size against agreement as points of a picture: what every rung that was asked came to, and which was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from servegraph.optimize.result import Optimized

WIDTH, HEIGHT = 640, 260  # of the field that the points lie in, in pixels
_NEAR = 14  # pixels: points closer than this are one, with the names of all
_TICKS = 5
_ROUND = [factor * 10**power for power in range(14) for factor in (1, 2, 5)]  # bytes; a line stands at such a size


@dataclass(frozen=True)
class Point:
    """A model that was asked, in pixels from the left and from the top; `x` grows with the logarithm of the size."""

    x: float
    y: float
    label: str
    size_bytes: int
    agreement: float
    kept: bool
    chosen: bool = False


@dataclass(frozen=True)
class Picture:
    """The points, the lines to read them by as (pixels, value), and where the budget lies."""

    points: tuple[Point, ...]
    sizes: tuple[tuple[float, int], ...]
    agreements: tuple[tuple[float, float], ...]
    budget: float | None


def draw(result: Optimized) -> Picture | None:
    """Return the picture of a ladder; None where no rung was asked."""
    asked = [step for step in result.steps if step.agreement is not None]
    if not asked:
        return None
    sizes = [result.before_bytes, result.budget_bytes or result.before_bytes, *(step.bytes for step in asked)]
    left, right = math.log(min(sizes)) - 0.15, math.log(max(sizes)) + 0.15
    lowest = _floor(min(step.agreement for step in asked if step.agreement is not None))

    def x_of(size: int) -> float:
        return round((math.log(size) - left) / (right - left) * WIDTH, 1)

    def y_of(agreement: float) -> float:
        return round((1 - agreement) / (1 - lowest) * HEIGHT, 1)

    points = [Point(x_of(result.before_bytes), 0.0, "original", result.before_bytes, 1.0, kept=True)]
    for step in asked:
        assert step.agreement is not None
        point = Point(x_of(step.bytes), y_of(step.agreement), step.name, step.bytes, step.agreement, step.kept)
        points = _with(points, point)
    kept = max(number for number, point in enumerate(points) if point.kept)
    points[kept] = replace(points[kept], chosen=True)
    return Picture(
        points=tuple(points),
        sizes=tuple((x_of(size), size) for size in _lines(math.exp(left), math.exp(right))),
        agreements=tuple((y_of(value), value) for value in (1 - (1 - lowest) * n / _TICKS for n in range(_TICKS + 1))),
        budget=x_of(result.budget_bytes) if result.budget_bytes else None,
    )


def _lines(low: float, high: float) -> list[int]:
    """Return the sizes at which lines stand: round ones, or multiples of one where fewer than two lie between."""
    between = [size for size in _ROUND if low < size < high]
    if len(between) > 1:
        return between[:: max(1, len(between) // 5)]
    even = ([*range(math.ceil(low / step) * step, math.ceil(high), step)] for step in reversed(_ROUND))
    return next((sizes for sizes in even if len(sizes) > 2), between)


def _with(points: list[Point], new: Point) -> list[Point]:
    """Return the points with one more, or with its name beside that of one that lies in the same place."""
    for number, old in enumerate(points):
        if old.kept == new.kept and math.hypot(old.x - new.x, old.y - new.y) < _NEAR:
            together = replace(new, label=f"{old.label}, {new.label}")
            return [*points[:number], *points[number + 1 :], together]
    return [*points, new]


def _floor(agreement: float) -> float:
    """Return where the axis of the agreement ends: the nearest of a few steps below all of it."""
    return next(floor for floor in (0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.0, -1.0) if agreement >= floor)
