"""`servegraph measure MODEL`: what a model does under a machine's limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from servegraph_pipelines.cli.local_paths import LocalPath
from servegraph_pipelines.cli.outcome import echo, print_json

if TYPE_CHECKING:
    from servegraph.measure.result import Measurement


@click.command("measure")
@click.argument("model", type=LocalPath())
@click.option(
    "--cpus", type=click.IntRange(min=1), metavar="N", help="CPUs of the server; all of this process's if not given."
)
@click.option("--memory", metavar="SIZE", help="Memory it may take, like 7.5GB.")
@click.option(
    "--samples",
    metavar="FILE",
    help="Requests as JSON lines; those stored with the model, or made-up ones, if not given.",
)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=3.0, show_default=True, help="Of each kind of load.")
@click.option(
    "--latency-goal-ms",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MS",
    help="Exit 1 if one row takes longer.",
)
@click.option(
    "--bfloat16-max-diff",
    type=click.FloatRange(min=0),
    metavar="X",
    help="Try bfloat16 too, and keep it if it is faster and no answer is further than X from float32's.",
)
@click.option("--no-tune", "tune", flag_value=False, default=True, help="Try no settings.")
@click.option("--save", is_flag=True, help="Store the settings that were kept with the model, for its servers.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the measurement as JSON, for `servegraph choose --measured`."
)
def command(
    model: Path,
    cpus: int | None,
    memory: str | None,
    samples: str | None,
    seconds: float,
    latency_goal_ms: float | None,
    bfloat16_max_diff: float | None,
    tune: bool,
    save: bool,
    as_json: bool,
) -> int:
    """Serve the SavedModel MODEL under a machine's limits and take load time, memory, latency and rate.

    Settings of the server are tried as well, and kept where they measured faster with equal answers. Exit code 1 if the
    model does not fit the limits, or misses the latency goal.
    """
    from servegraph.machines import this_machine
    from servegraph.machines.sizes import parse_size
    from servegraph.measure.limits import Limits
    from servegraph.measure.measure import MeasureRequest, measure, size_of
    from servegraph.savedmodel.layout import require_saved_model
    from servegraph.serve.settings import require_writable, write_settings
    from servegraph.storage import open_dir

    limits = Limits(cpus or this_machine.read().vcpus, parse_size(memory) if memory else None)
    if save:
        require_saved_model(open_dir(model))
        require_writable(model)
    found = measure(MeasureRequest(model, limits, samples, seconds, tune, latency_goal_ms, bfloat16_max_diff))
    if save:
        write_settings(model, found.settings)
        found = replace(found, model_bytes=size_of(model))  # the settings are among its files now
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)
    return 1 if found.misses_latency_goal else 0


def _show(found: Measurement) -> None:
    from servegraph.machines.sizes import format_size
    from servegraph_pipelines.cli.tables import print_table

    figures, limits = found.figures, found.limits
    memory = f" and {format_size(limits.memory_bytes)}" if limits.memory_bytes else ""
    echo(f"{format_size(found.model_bytes)} on disk, under {limits.cpus} CPUs{memory} ({found.how})")
    echo(f"asked with {found.questions}")
    echo(f"loaded in {figures.load_seconds:.1f} s with TensorFlow's own start")
    steady, peak = format_size(figures.steady_memory_bytes), format_size(figures.peak_memory_bytes)
    echo(f"memory {steady} after loading, {peak} at the most")
    rate, p99 = figures.rate, figures.rate_p99_ms
    echo(f"{rate:.0f} requests a second on {figures.connections} connections, p99 {p99:.2f} ms")
    columns = ("rows", "p50 ms", "p99 ms", "rows/s")
    batches = [
        (str(batch.rows), f"{batch.p50_ms:.2f}", f"{batch.p99_ms:.2f}", f"{batch.rows_per_second:.0f}")
        for batch in figures.batches
    ]
    print_table(columns, batches, figures=columns)
    tried = []
    for one in found.tried:
        ratios = (f"{ratio:.2f} x" if ratio else "" for ratio in (one.latency_ratio, one.rate_ratio))
        tried.append((one.name, "yes" if one.kept else "no", *ratios, one.reason))
    if tried:
        print_table(("tried", "kept", "latency", "rate", "why"), tried, figures=("latency", "rate"))
    settings = found.settings
    start = [*(f"{name}={value}" for name, value in settings.environment().items()), "servegraph serve ROOT"]
    echo("serve it with: " + " ".join([*start, *settings.arguments()]))
    for note in found.notes:
        echo(note, head="note", colour="yellow")
    if found.misses_latency_goal:
        missed = f"for one row miss the goal of {found.latency_goal_ms:g} ms"
        echo(missed, head=f"{figures.latency_ms:.2f} ms", colour="red")
