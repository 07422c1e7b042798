"""What a changed model may lose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """How far answers may be from the original's; None is no limit.

    `min_agreement` is the share of samples with the same decision, `max_abs_diff` the largest difference of any float
    output, `max_metric_drop` what the metric on labelled samples may lose (0.005 is half a point of accuracy).
    """

    min_agreement: float = 0.99
    max_abs_diff: float | None = None
    max_metric_drop: float | None = None
