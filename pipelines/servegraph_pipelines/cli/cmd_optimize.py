"""`servegraph optimize MODEL OUT`: the ladder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servegraph.errors import StorageError
from servegraph.extras import require
from servegraph.quiet_tensorflow import import_tensorflow_quietly
from servegraph.storage.local import write_file
from servegraph_pipelines.cli.local_paths import NEW_FILE, LocalPath
from servegraph_pipelines.cli.outcome import echo, print_json, show_error

if TYPE_CHECKING:
    from servegraph.optimize.result import Optimized


@click.command("optimize")
@click.argument("model", type=LocalPath())
@click.argument("out", type=LocalPath())
@click.option("--budget", default="", help="Size to fit, like 500MB; lossless rungs only if not given.")
@click.option("--fit", default="", help="A machine or family to fit instead, like mls1 or n1-standard-2.")
@click.option(
    "--samples", help="Records as JSON lines to compare answers on; without them warmup requests, or made-up ones."
)
@click.option("--label", default="", help="Key of the label in the samples, or KEY=OUTPUT.")
@click.option(
    "--min-agreement",
    type=float,
    default=0.99,
    show_default=True,
    help="Share of samples with the same decision.",
)
@click.option("--max-abs-diff", type=float, help="Largest difference of any float output.")
@click.option("--max-metric-drop", type=float, help="What the metric may lose, e.g. 0.005 for half a point.")
@click.option(
    "--rungs",
    default="",
    help="Comma-separated names of the rungs to try, in this order, lossy ones without a budget too.",
)
@click.option(
    "--keep",
    multiple=True,
    help="A weight that stays as it is, by checkpoint key or variable, with * and ?; may be repeated.",
)
@click.option(
    "--min-count",
    type=int,
    default=1,
    show_default=True,
    help="How often the samples must look up a word for the rung trim to keep it.",
)
@click.option("--html", type=NEW_FILE, help="Write the ladder as a page.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    model: Path, out: Path, samples: str | None, rungs: str, html: Path | None, as_json: bool, **wanted: Any
) -> int:
    """Shrink the SavedModel MODEL into the new directory OUT until it fits the budget, losing as little as possible."""
    from servegraph.answers.child import warm_up
    from servegraph.optimize.goal import goal_of
    from servegraph.optimize.places import require_places

    if html is not None and not html.parent.is_dir():
        raise StorageError(
            f"The page {html} cannot be written: there is no directory {html.parent}.",
            code="NOT_FOUND",
            fix="Make it, or give another path; nothing was optimized.",
        )
    goal = goal_of(rungs=[name.strip() for name in rungs.split(",") if name.strip()], **wanted)
    require_places(model, out, samples)
    require(("tensorflow",), "Optimizing")  # before a child looks for it too
    warm_up()
    import_tensorflow_quietly()
    from servegraph.optimize.html import render
    from servegraph.optimize.optimize import optimize

    result = optimize(model, out, goal, samples)
    if html is not None:
        write_file(html, render(result, str(model)).encode())
    if as_json:
        print_json(result.to_json())
    else:
        _show(result)
    if (shortfall := result.shortfall()) is not None:
        show_error(shortfall.code, f"{shortfall.message} {out} holds the best.", f"fix: {shortfall.fix}")
    return 0 if result.fits else 1


def _show(result: Optimized) -> None:
    from servegraph.machines.sizes import format_size
    from servegraph.metric_words import metric_name, metric_value
    from servegraph_pipelines.cli.tables import print_table

    rows = [("original", "", format_size(result.before_bytes), "", "", "")]
    for step in result.steps:
        rows.append(
            (
                step.name,
                "yes" if step.kept else "no",
                format_size(step.bytes),
                "" if step.agreement is None else f"{step.agreement:.4f}",
                "" if step.max_abs_diff is None else f"{step.max_abs_diff:.2g}",
                f"{step.what}: {step.note}" if step.kept and step.note else step.note or step.what,
            )
        )
    if result.golden_requests:
        size = format_size(result.golden_bytes)
        rows.append(("golden requests", "", size, "", "", f"{result.golden_requests}, for a deploy to compare"))
    figures = ("size", "agreement", "largest difference")
    print_table(("rung", "kept", *figures, "why"), rows, figures=figures)
    before, after = format_size(result.before_bytes), format_size(result.after_bytes)
    made_up = ", made up" if result.samples_generated else ""
    echo(f"{before} → {after} ({result.sample_rows} samples{made_up})")
    if result.metric_name is not None and result.metric_before is not None and result.metric_after is not None:
        then = metric_value(result.metric_after)
        echo(f"{metric_name(result.metric_name)} {metric_value(result.metric_before)} → {then}")
    for note in result.notes:
        echo(f"note: {note}", err=True)
