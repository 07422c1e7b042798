"""`servegraph optimize MODEL OUT`: the ladder."""

from __future__ import annotations

from pathlib import Path

import click

from servegraph_pipelines.cli.outcome import import_tensorflow_quietly, print_json


@click.command("optimize")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--budget", default="", help="Size to fit, like 500MB; lossless rungs only if not given.")
@click.option("--samples", help="Records as JSON lines to compare answers on; made up if not given.")
@click.option(
    "--min-agreement",
    type=float,
    default=0.99,
    show_default=True,
    help="Share of samples with the same decision.",
)
@click.option("--rungs", default="", help="Comma-separated names of the rungs to try; all if not given.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the ladder as a page.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    model: Path,
    out: Path,
    budget: str,
    samples: str | None,
    min_agreement: float,
    rungs: str,
    html: Path | None,
    as_json: bool,
) -> int:
    """Shrink the SavedModel MODEL into the new directory OUT until it fits the budget, losing as little as possible."""
    import_tensorflow_quietly()
    from servegraph.machines.sizes import parse_size
    from servegraph.optimize.html import render
    from servegraph.optimize.optimize import QUOTA_ADVICE, Goal, optimize

    goal = Goal(
        budget_bytes=parse_size(budget) if budget else None,
        min_agreement=min_agreement,
        rungs=tuple(name.strip() for name in rungs.split(",")) if rungs else Goal.rungs,
    )
    result = optimize(model, out, goal, samples)
    if html is not None:
        html.write_text(render(result), encoding="utf-8")
    if as_json:
        print_json(result.to_json())
    else:
        _show(result.to_json())
    if not result.fits:
        click.echo(f"error BUDGET_NOT_MET: {out} holds the best that was reached.\n  fix: {QUOTA_ADVICE}", err=True)
    return 0 if result.fits else 1


def _show(result: dict[str, object]) -> None:
    from rich.console import Console
    from rich.table import Table

    from servegraph.machines.sizes import format_size

    table = Table("rung", "kept", "size", "agreement", "largest difference", "why", box=None)
    table.add_row("original", "", format_size(int(str(result["before_bytes"]))), "", "", "")
    steps = result["steps"]
    assert isinstance(steps, list)
    for step in steps:
        asked = step["agreement"] is not None
        table.add_row(
            step["name"],
            "yes" if step["kept"] else "no",
            format_size(step["bytes"]),
            f"{step['agreement']:.4f}" if asked else "",
            f"{step['max_abs_diff']:.2g}" if asked else "",
            step["reason"] or step["what"],
        )
    console = Console()
    console.print(table)
    before, after = (format_size(int(str(result[key]))) for key in ("before_bytes", "after_bytes"))
    made_up = ", made up" if result["samples_generated"] else ""
    console.print(f"{before} → [bold]{after}[/bold] ({result['sample_rows']} samples{made_up})")
    notes = result["notes"]
    assert isinstance(notes, list)
    for note in notes:
        click.echo(f"note: {note}", err=True)
