"""The component: picks the machine for a measured model inside a pipeline."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Output

from servegraph import _image


@dsl.component(base_image=_image.SLIM, install_kfp_package=False)  # type: ignore[untyped-decorator]
def choose_machine(
    model_bytes: int,
    decision: Output[Artifact],
    platform: str = "vertex",
    accelerator: str = "auto",
    memory_bytes: int = 0,
    latency_goal_ms: float = 0.0,
    measured_latency_ms: float = 0.0,
    tag_sets: list = [],  # type: ignore[type-arg]  # KFP copies it
    custom_prediction_routine: bool = False,
    granted_model_bytes: int = 0,
    measured_rate: float = 0.0,
    measured_cpus: int = 0,
    target_rate: float = 0.0,
) -> NamedTuple(  # type: ignore[valid-type]
    "Chosen",
    [
        ("machine_type", str),
        ("accelerator_type", str),
        ("accelerator_count", int),
        ("price_per_hour", float),
        ("tags", list),
        ("warnings", list),
        ("fallbacks", list),
        ("resources", dict),
    ],
):
    """Pick the machine for a model from its measured size, and record why it and no other.

    Args:
        model_bytes: Measured size of the whole model directory.
        decision: The decision record as JSON: every rejected machine with its reason, fallbacks, price.
        platform: Whose machines to choose from: vertex, ai-platform, kserve or local.
        accelerator: auto, none, or a GPU with an optional count, like T4 or T4:2.
        memory_bytes: Measured memory that the model needs; 0 takes TensorFlow Serving's estimate.
        latency_goal_ms: Goal for one request; 0 for none. With a measured latency above it, auto takes a GPU.
        measured_latency_ms: Measured latency of one request on a CPU; 0 if it was not measured.
        tag_sets: The tags of each MetaGraph; empty for the plain serving graph alone.
        custom_prediction_routine: The model comes with Python code of its own.
        granted_model_bytes: Model size quota that the platform granted; 0 for its default limit.
        measured_rate: Measured requests a second of one server; 0 if it was not measured.
        measured_cpus: The CPUs it was measured on; 0 if it was not.
        target_rate: Requests a second to be served, for the number of replicas; 0 for none.

    Returns:
        machine_type: The machine; "container" on kserve, "local" on local.
        accelerator_type: Its GPU; empty for none.
        accelerator_count: How many of it; 0 for none.
        price_per_hour: USD on demand; 0 where no price is known.
        tags: The tag-set to load.
        warnings: What to know before deploying there, each as CODE: sentence.
        fallbacks: Machines to try in turn where it is not to be had.
        resources: What a container asks for; empty but on kserve.
    """
    import json
    from collections import namedtuple
    from datetime import datetime, timezone
    from pathlib import Path

    from servegraph.machines import this_machine
    from servegraph.machines.choose import choose
    from servegraph.machines.decision import ChoiceRequest

    record = choose(
        ChoiceRequest(
            model_bytes=model_bytes,
            today=datetime.now(timezone.utc).date(),
            platform=platform,  # type: ignore[arg-type]  # choose() checks it
            accelerator=accelerator,
            memory_bytes=memory_bytes or None,
            latency_goal_ms=latency_goal_ms or None,
            measured_latency_ms=measured_latency_ms or None,
            tag_sets=tuple(tuple(tags) for tags in tag_sets),
            custom_prediction_routine=custom_prediction_routine,
            granted_model_bytes=granted_model_bytes or None,
            measured_rate=measured_rate or None,
            measured_cpus=measured_cpus or None,
            target_rate=target_rate or None,
            this_machine=this_machine.read() if platform == "local" else None,
        )
    )
    Path(decision.path).write_text(json.dumps(record.to_json(), indent=2), encoding="utf-8")
    machine = record.machine
    Chosen = namedtuple(
        "Chosen",
        "machine_type accelerator_type accelerator_count price_per_hour tags warnings fallbacks resources",
    )
    return Chosen(
        machine.machine_type,
        machine.accelerator_type or "",
        machine.accelerator_count,
        machine.price.usd if machine.price else 0.0,
        list(record.tags),
        list(record.warnings),
        # kfp.local passes no null inside a list: what a machine has not is left out.
        [
            {key: value for key, value in fallback.to_json().items() if value is not None}
            for fallback in record.fallbacks
        ],
        dict(record.resources.requests) if record.resources else {},
    )
