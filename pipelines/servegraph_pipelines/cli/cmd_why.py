"""`servegraph why RUN STEP`: what changed since the run before."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from servegraph_pipelines.cli.engine_options import engine_options
from servegraph_pipelines.cli.outcome import print_json


@click.command("why")
@click.argument("run")
@click.argument("step")
@click.option("--against", metavar="RUN", help="The run to compare with.  [default: the one before, of its pipeline]")
@engine_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str, step: str, against: str | None, engine_name: Any, place: Any, as_json: bool) -> int:
    """Say why STEP of RUN was not taken from the cache: what of it, and of all before it, is not as it was."""
    from servegraph_pipelines.engines import open_engine
    from servegraph_pipelines.why import why

    with contextlib.closing(open_engine(engine_name, place)) as engine:
        now, before = engine.past(run, against)
    reasons = why(step, before, now)
    if as_json:
        rows = [{"step": r.step, "what": r.what, "before": r.before, "now": r.now} for r in reasons]
        print_json({"run": now.id, "against": before.id, "step": step, "reasons": rows})
        return 0
    click.echo(f"{step} of {now.id} against {before.id}:")
    for reason in reasons:
        click.echo(f"  {reason}")
    if not reasons:
        click.echo("  nothing differs: a cached result is taken where the engine still has it.")
    return 0
