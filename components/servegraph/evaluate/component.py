"""The component: blesses a model for serving inside a pipeline, or not."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from servegraph import _image


@dsl.component(base_image=_image.TENSORFLOW, install_kfp_package=False)
def evaluate(
    model: Input[Model],
    samples: Input[Dataset],
    metrics: Output[Metrics],
    evaluation: Output[Artifact],
    live: str = "",
    label: str = "",
    min_metric: str = "",
    max_metric_drop: float = 0.0,
    max_size: str = "",
    max_size_growth: float = 0.0,
    max_latency_ms: float = 0.0,
    max_latency_growth: float = 0.0,
    measured_latency_ms: float = 0.0,
    allow_incomparable: bool = False,
) -> NamedTuple(
    "Evaluated",
    [("verdict", str), ("reasons", list), ("metric", str), ("value", float), ("latency_ms", float)],
):
    """Measure a serving SavedModel through its signature, and the live version on the same records; bless it or not.

    Args:
        model: The SavedModel as it would be served.
        samples: Labelled records as JSON lines that neither was trained on.
        metrics: What was measured of both.
        evaluation: The same with the verdict and its reasons, as JSON.
        live: Files of the version now live, a path or gs://; empty where there is none to compare with.
        label: Key of the label in the records, or KEY=OUTPUT; empty takes the one that `train` noted.
        min_metric: The least accuracy, or the largest mean absolute error; empty sets none.
        max_metric_drop: Accuracy that may be lost against the live version, or the part by which the error may grow.
        max_size: The most bytes, like 500MB; empty sets none.
        max_size_growth: How many times the size of the live version it may be; 0 sets no limit.
        max_latency_ms: The longest median of one record as `measured_latency_ms` has it; 0 sets none.
        max_latency_growth: How many times the latency of the live version it may have; 0 sets no limit.
        measured_latency_ms: The median of a server under the limits of its machine, from `measure`; 0 where it was not
            measured: then that of a call in this step counts. Against the live version both are called here, in turn.
        allow_incomparable: Bless it also where the live version cannot answer these records.

    Returns:
        verdict: blessed or refused.
        reasons: Why it was refused, a sentence each.
        metric: The name of the metric.
        value: Its value for the model.
        latency_ms: The median latency of one record: the measured one, else that of a call here.
    """
    import json
    from collections import namedtuple
    from pathlib import Path

    from servegraph import artifacts
    from servegraph.evaluate.evaluate import evaluate
    from servegraph.evaluate.judge import Criteria

    noted = artifacts.recall(samples, artifacts.HeldOut)
    criteria = Criteria.of(
        min_metric=min_metric,
        max_metric_drop=max_metric_drop,
        max_size=max_size,
        max_size_growth=max_size_growth,
        max_latency_ms=max_latency_ms,
        max_latency_growth=max_latency_growth,
        allow_incomparable=allow_incomparable,
    )
    found = evaluate(
        model.path,
        live,
        samples.path,
        label,
        criteria,
        measured_latency_ms,
        noted_label=noted.label if noted else "",
    )
    for name, value in found.figures().items():
        metrics.log_metric(name, value)
    Path(evaluation.path).write_text(json.dumps(found.to_json(), indent=2), encoding="utf-8")
    for reason in found.reasons:
        print(f"refused: {reason}")
    mine = found.candidate
    Evaluated = namedtuple("Evaluated", ["verdict", "reasons", "metric", "value", "latency_ms"])
    return Evaluated(found.verdict, list(found.reasons), mine.metric.name, mine.metric.value, found.latency_ms)
