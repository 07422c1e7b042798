"""`servegraph why RUN STEP`: what changed since the run before."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import click

from servegraph_pipelines.cli.engine_options import engine_options
from servegraph_pipelines.cli.outcome import echo, print_json


@click.command("why")
@click.argument("run")
@click.argument("step")
@click.option("--against", metavar="RUN", help="The run to compare with.  [default: the one before, of its pipeline]")
@functools.partial(engine_options, local=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str, step: str, against: str | None, engine_name: Any, place: Any, as_json: bool) -> int:
    """Say why STEP of RUN was not taken from the cache: what of it, and of all before it, is not as it was.

    On this machine RUN is the output directory of `servegraph run`, for its newest run, or the folder of one below its
    `pipeline`; elsewhere its name or id.
    """
    from servegraph.storage.local_paths import require_local
    from servegraph_pipelines.engines import open_engine
    from servegraph_pipelines.step_keys import local_runs
    from servegraph_pipelines.why import require_step, why, why_here

    if engine_name == "local":
        folder, other = local_runs(require_local(run), step, require_local(against) if against else None)
        reasons, ids = why_here(step, other, folder), (folder.name, other.name)
    else:
        with contextlib.closing(open_engine(engine_name, place)) as engine:
            now = engine.past(run)
            require_step(now, step)
            before = engine.past_before(run) if against is None else engine.past(against)
        reasons, ids = why(step, before, now), (now.id, before.id)
    if as_json:
        rows = [{"step": r.step, "what": r.what, "before": r.before, "now": r.now} for r in reasons]
        print_json({"run": ids[0], "against": ids[1], "step": step, "reasons": rows})
        return 0
    echo(f"{step} of {ids[0]} against {ids[1]}:")
    for reason in reasons:
        echo(f"  {reason}")
    if not reasons:
        echo("  nothing differs: a cached result is taken where there still is one.")
    return 0
