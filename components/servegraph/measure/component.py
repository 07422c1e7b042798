"""The KFP component around `measure.measure`."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from servegraph import _image


@dsl.component(base_image=_image.TENSORFLOW, install_kfp_package=False)
def measure(
    model: Input[Model],
    measurement: Output[Artifact],
    metrics: Output[Metrics],
    samples: Input[Dataset] = None,
    cpus: int = 0,
    memory: str = "",
    seconds: float = 2.0,
    tune: bool = True,
    bfloat16_max_diff: float = 0.0,
) -> NamedTuple(  # type: ignore[valid-type]
    "Measured",
    [
        ("memory_bytes", int),
        ("latency_ms", float),
        ("requests_per_second", float),
        ("cpus", int),
        ("settings", dict),
    ],
):
    """Serve a SavedModel under the limits of a machine and take its load time, memory, latency and rate.

    Args:
        model: Any SavedModel.
        measurement: The whole measurement as JSON, for `servegraph choose --measured`.
        metrics: Load time, memory, latency, rate.
        samples: Records as JSON lines to ask with; golden or made-up ones without them.
        cpus: CPUs that the server may use; 0 takes those of this step.
        memory: Memory that it may use, like 7.5GB; empty sets no limit.
        seconds: Time of each kind of load.
        tune: Whether settings of the server are tried, and kept where faster with equal answers.
        bfloat16_max_diff: How far an answer may be from float32's for bfloat16 to be kept; 0 does not try it.

    Returns:
        memory_bytes: The most memory that the server took.
        latency_ms: Median of a request of one row.
        requests_per_second: Rate of such requests on several connections.
        cpus: The CPUs it had.
        settings: The settings that were kept (batch_rows, onednn, threads, bfloat16) and how to start a server so.
    """
    import json
    from collections import namedtuple
    from pathlib import Path

    from servegraph.machines import this_machine
    from servegraph.machines.sizes import parse_size
    from servegraph.measure.limits import Limits
    from servegraph.measure.measure import MeasureRequest
    from servegraph.measure.measure import measure as take

    limits = Limits(cpus or this_machine.read().vcpus, parse_size(memory) if memory else None)
    samples_uri = samples.path if samples else None
    allowed = bfloat16_max_diff or None
    request = MeasureRequest(Path(model.path), limits, samples_uri, seconds, tune, bfloat16_max_diff=allowed)
    found = take(request).to_json()
    Path(measurement.path).write_text(json.dumps(found, indent=2), encoding="utf-8")
    names = ("load_seconds", "steady_memory_bytes", "peak_memory_bytes", "latency_ms", "requests_per_second")
    for name in names:
        metrics.log_metric(name, found[name])
    # kfp.local passes no null inside an object: what is not set is left out.
    settings = {key: value for key, value in found["settings"].items() if value is not None}
    Measured = namedtuple("Measured", "memory_bytes latency_ms requests_per_second cpus settings")
    return Measured(
        found["peak_memory_bytes"], found["latency_ms"], found["requests_per_second"], found["cpus"], settings
    )
