"""The KFP component around `optimize.optimize`."""

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
    min_agreement: float = 0.99,
    rungs: list = [],  # KFP copies it
):
    """Shrink a SavedModel until it fits the budget, losing as little as possible, and prove that its answers stayed.

    Args:
        model: Any SavedModel.
        optimized: The smaller SavedModel, with golden requests and their answers in assets.extra.
        metrics: Bytes before and after, agreement, largest difference.
        report: The ladder as a page.
        samples: Records as JSON lines to compare answers on; without them records are made up.
        budget: Size to fit, like 500MB; empty takes the lossless rungs only.
        min_agreement: Share of samples that must get the same decision, 0 to 1.
        rungs: Names of the rungs to try, in the ladder's order; empty tries all.
    """
    from pathlib import Path

    from servegraph import artifacts
    from servegraph.optimize.html import render
    from servegraph.optimize.optimize import optimize_artifact

    result = optimize_artifact(
        model.path,
        optimized.path,
        samples=samples.path if samples else None,
        budget=budget,
        min_agreement=min_agreement,
        rungs=rungs,
    )
    artifacts.record(optimized, artifacts.ServingModel(result.after_bytes, result.digest, "optimize"))
    for name, value in result.figures().items():
        metrics.log_metric(name, value)
    Path(report.path).write_text(render(result), encoding="utf-8")
    result.require_fit()
