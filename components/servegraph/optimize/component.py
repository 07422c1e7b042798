"""The KFP component around `optimize.optimize`."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from servegraph import _image


@dsl.component(base_image=_image.TENSORFLOW, install_kfp_package=False)
def optimize(
    model: Input[Model],
    optimized: Output[Model],
    metrics: Output[Metrics],
    report: Output[HTML],
    samples: Input[Dataset] = None,
    budget: str = "",
    fit: str = "",
    min_agreement: float = 0.99,
    max_abs_diff: str = "",
    max_metric_drop: str = "",
    label: str = "",
    rungs: list = [],  # KFP copies it
    keep: list = [],
    min_count: int = 1,
    model_digest: str = "",
    samples_digest: str = "",
    model_name: str = "",
) -> NamedTuple("Optimized", [("optimized_digest", str)]):
    """Shrink a SavedModel until it fits the budget, losing as little as possible, and prove that its answers stayed.

    Args:
        model: Any SavedModel.
        optimized: The smaller SavedModel, with golden requests and their answers in assets.extra.
        metrics: Bytes before and after, agreement, largest difference.
        report: The ladder as a page.
        samples: Records as JSON lines to compare answers on; without them records are made up.
        budget: Size to fit, like 500MB; empty takes the lossless rungs only.
        fit: Instead of a budget, a machine or family to fit, like mls1 or n1-standard-2.
        min_agreement: Share of samples that must get the same decision, 0 to 1.
        max_abs_diff: Largest difference of any float output, as a number; empty sets no limit.
        max_metric_drop: What the metric on labelled samples may lose, as a number; empty sets no limit.
        label: Key of the label in the samples, or KEY=OUTPUT; empty takes no metric.
        rungs: Names of the rungs to try, in this order, lossy ones without a budget as well; empty tries all.
        keep: Weights that stay as they are, by checkpoint key or variable, with * and ?.
        min_count: How often the samples must look up an entry of a vocabulary for the rung `trim` to keep it.
        model_digest: Digest of the model's content, for the key of an engine's cache, which has its id alone.
        samples_digest: Digest of the samples' content, likewise.
        model_name: What the report calls the model; the last part of its path if empty.

    Returns:
        optimized_digest: SHA-256 over all files of the smaller SavedModel.
    """
    import shutil
    from collections import namedtuple
    from pathlib import Path

    from servegraph import artifacts, taken
    from servegraph.answers.child import warm_up
    from servegraph.optimize.goal import goal_of, limit_of
    from servegraph.optimize.places import require_places

    taken.say(
        model=model_digest or taken.digest_in(model.metadata),
        samples=samples_digest or (taken.digest_in(samples.metadata) if samples else ""),
    )
    goal = goal_of(
        budget=budget,
        fit=fit,
        min_agreement=min_agreement,
        max_abs_diff=limit_of("max_abs_diff", max_abs_diff),
        max_metric_drop=limit_of("max_metric_drop", max_metric_drop),
        rungs=rungs,
        keep=keep,
        label=label,
        min_count=min_count,
    )
    shutil.rmtree(optimized.path, ignore_errors=True)  # what a failed attempt left
    require_places(Path(model.path), Path(optimized.path))
    warm_up()  # TensorFlow takes seconds to import: for what asks the model beside what changes it
    from servegraph.optimize.html import render
    from servegraph.optimize.optimize import optimize as climb

    result = climb(Path(model.path), Path(optimized.path), goal, samples.path if samples else None)
    artifacts.record(optimized, artifacts.ServingModel(result.after_bytes, result.digest, "optimize"))
    for name, value in result.figures().items():
        metrics.log_metric(name, value)
    Path(report.path).write_text(render(result, model_name or Path(model.path).name), encoding="utf-8")
    if (shortfall := result.shortfall()) is not None:
        raise shortfall
    Optimized = namedtuple("Optimized", ["optimized_digest"])
    return Optimized(result.digest)
