"""Metrics of a classifier or a regression on held-out records, exact, from its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROC_POINTS = 200  # as many as a curve on a page can show


@dataclass(frozen=True)
class Evaluation:
    """`scalars` by name; for a classifier the confusion matrix [true][predicted], for two classes the ROC curve."""

    scalars: dict[str, float]
    confusion: list[list[int]] | None = None
    roc: list[tuple[float, float, float]] | None = None  # (false positive rate, true positive rate, threshold)


def classification(labels: NDArray[Any], probabilities: NDArray[Any]) -> Evaluation:
    """Return accuracy, log loss and AUC (for more than two classes the mean over one class against the rest).

    `labels` are int [rows], `probabilities` float [rows, classes].
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    confusion = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    own = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1.0)
    curves = [
        roc_curve(labels == k, probabilities[:, k])
        for k in (range(classes) if classes > 2 else [1])
        if 0 < (labels == k).sum() < len(labels)
    ]
    scalars = {"accuracy": float((predicted == labels).mean()), "log_loss": float(-np.log(own).mean())}
    if curves:
        scalars["auc"] = float(np.mean([area for _, area in curves]))
    roc = _thinned(curves[0][0]) if classes == 2 and curves else None
    return Evaluation(scalars, confusion.tolist(), roc)


def regression(labels: NDArray[Any], values: NDArray[Any]) -> Evaluation:
    """Return the mean absolute error, the root mean squared error and R² of `values` [rows]."""
    labels = labels.astype(np.float64)  # in which squares of large numbers fit
    error = values - labels
    total = float(((labels - labels.mean()) ** 2).sum())
    return Evaluation(
        {
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt((error**2).mean())),
            **({"r2": 1.0 - float((error**2).sum()) / total} if total else {}),
        }
    )


def roc_curve(positive: NDArray[Any], scores: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return (points [n, 3]: false positive rate, true positive rate, threshold; area under the curve).

    Equal scores make one point, so ties count half, as in the rank statistic that the area is.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true, false = np.cumsum(hits)[last], np.cumsum(~hits)[last]
    points = np.column_stack([false / (~hits).sum(), true / hits.sum(), ranked[last]])
    points = np.vstack([[0.0, 0.0, 1.0], points])
    width, height = np.diff(points[:, 0]), (points[1:, 1] + points[:-1, 1]) / 2
    return points, float((width * height).sum())


def _thinned(points: NDArray[Any]) -> list[tuple[float, float, float]]:
    keep = np.unique(np.linspace(0, len(points) - 1, min(ROC_POINTS, len(points))).astype(int))
    return [(float(x), float(y), float(t)) for x, y, t in points[keep]]
