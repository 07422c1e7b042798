"""Resources of steps as parameters of the pipeline, for whoever starts a run of the compiled file.

KFP's own `set_cpu_limit(parameter)` writes the same form, but loses the parameter on its way into a condition, where
the steps of `retrain` are (kfp 2.17). A cluster takes no empty quantity (`getPodResource` of KFP's driver): so there
are parameters for what was asked for, with that as their default, and for nothing else.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from servegraph.errors import InputError
from servegraph.suggestion import did_you_mean
from servegraph_pipelines.resources import EngineName, StepResources
from servegraph_pipelines.specification import Specification

_CHANNEL = "pipelinechannel--"
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['pipelinechannel--(\w+)'\]\}\}")
# One row a resource: field of `StepResources`, where the executor has it in the IR, the input that KFP gives the task.
_ROWS = (
    ("cpu", ("resourceCpuLimit",), "cpu_limit"),
    ("memory", ("resourceMemoryLimit",), "memory_limit"),
    ("accelerator", ("accelerator", "resourceType"), "accelerator_type"),
    ("accelerator_count", ("accelerator", "resourceCount"), "accelerator_count"),
)


def with_parameters(specification: Specification, resources: Mapping[str, StepResources]) -> Specification:
    """Return the pipeline with parameters like `train_cpu` for these resources, which are their defaults.

    Raises:
        InputError: no such step (code `UNKNOWN_STEP`), no such resources (`BAD_RESOURCES`), or the pipeline has a
            parameter of that name (`BAD_PARAMETER`).
    """
    document = copy.deepcopy(dict(specification.document))
    executors = {step.name: step.executor for step in specification.steps}
    for step, wanted in resources.items():
        if step not in executors:
            fix = f"{did_you_mean(step, executors)}It has {', '.join(executors)}."
            raise InputError(f"The pipeline {specification.name} has no step {step!r}.", code="UNKNOWN_STEP", fix=fix)
        # The form; a run is held to its engine's limits. A device plugin's name has a slash, Vertex AI's have none.
        wanted.to_ir("kfp" if "/" in (wanted.accelerator or "/") else "vertex")
        for field, place, task_input in _ROWS:
            value = getattr(wanted, field)
            if value is None or (field == "accelerator_count" and wanted.accelerator is None):
                continue
            name = f"{step}_{field}".replace("-", "_")
            _declare(document, name, str(value))
            placeholder = f"{{{{$.inputs.parameters['{_CHANNEL}{name}']}}}}"
            _hand_down(document, step, name)[task_input] = {"runtimeValue": {"constant": placeholder}}
            row = document["deploymentSpec"]["executors"][executors[step]]["container"].setdefault("resources", {})
            for key in place[:-1]:
                row = row.setdefault(key, {})
            row[place[-1]] = placeholder
    return replace(specification, document=document)


def check(specification: Specification, engine: EngineName, parameters: Mapping[str, Any]) -> None:
    """Hold the parameters that are resources of steps to what the engine gives.

    Raises:
        InputError: one asks for more, or for what there is not (code `BAD_RESOURCES`).
    """
    executors = specification.document["deploymentSpec"]["executors"]
    for step in specification.steps:
        found: dict[str, Any] = {}
        for field, place, _ in _ROWS:
            row: Any = executors[step.executor]["container"].get("resources", {})
            for key in place:
                row = row.get(key, {})
            match = _PLACEHOLDER.fullmatch(row) if isinstance(row, str) else None
            if match and match[1] in specification.parameters:
                found[field] = parameters.get(match[1], specification.parameters[match[1]].get("defaultValue"))
        count = str(found.pop("accelerator_count", "1"))
        if not re.fullmatch(r"[1-9]\d?", count):
            raise InputError(
                f"{count!r} is no number of accelerators of {step.name}.",
                code="BAD_RESOURCES",
                fix="Give a whole number from 1 to 99.",
            )
        StepResources(**found, accelerator_count=int(count)).to_ir(engine)


def refuse_twice(specification: Specification, resources: Mapping[str, StepResources]) -> None:
    """Refuse resources that are parameters of the pipeline already: two values would be sent.

    Raises:
        InputError: one is (code `BAD_RESOURCES`).
    """
    for step, wanted in resources.items():
        for field, _, _ in _ROWS[:3]:
            name = f"{step}_{field}".replace("-", "_")
            if getattr(wanted, field) is not None and name in specification.parameters:
                fix = f"Give --param {name}={getattr(wanted, field)}."
                raise InputError(f"{step}.{field} is the parameter {name} here.", code="BAD_RESOURCES", fix=fix)


def _declare(document: dict[str, Any], name: str, default: str) -> None:
    parameters = document["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    if name in parameters:
        raise InputError(
            f"The pipeline has a parameter {name} already.",
            code="BAD_PARAMETER",
            fix="Rename it in the pipeline: the name is needed for the resources of the step.",
        )
    parameters[name] = {"parameterType": "STRING", "isOptional": True, "defaultValue": default}


def _hand_down(document: dict[str, Any], step: str, name: str) -> dict[str, Any]:
    """Give the parameter to each group that the step stands in, and to the step; return the inputs of the step."""
    channel = _CHANNEL + name
    source = name
    inputs: dict[str, Any] = {}
    for task, component in _way_to(document, document["root"]["dag"], step):
        inputs = task.setdefault("inputs", {}).setdefault("parameters", {})
        inputs[channel] = {"componentInputParameter": source}
        source = channel
        if "dag" in component:
            definitions = component.setdefault("inputDefinitions", {}).setdefault("parameters", {})
            definitions[channel] = {"parameterType": "STRING"}
    return inputs


def _way_to(
    document: dict[str, Any], dag: dict[str, Any], step: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield (task, component) of each group around the step, the outermost first, and of the step itself."""
    for name, task in dag["tasks"].items():
        component = document["components"][task["componentRef"]["name"]]
        if "dag" not in component:
            if name == step:
                yield task, component
        elif below := list(_way_to(document, component["dag"], step)):
            yield task, component
            yield from below
