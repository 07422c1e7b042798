"""What each step of a compiled pipeline is given: values or outputs of other steps, through groups of tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from servegraph_pipelines.specification import Specification

_NUMBER = re.compile(r"-\d+$")  # of the second and later uses of a component


@dataclass(frozen=True)
class Output:
    """What another task makes; `content` is its digest, or its value, where that is known."""

    task: str
    key: str
    content: str = ""


@dataclass(frozen=True)
class Task:
    """A task: its container (empty for an importer), and its inputs as values or `Output`s; None has no value."""

    name: str
    component: str  # as it was named in Python, with dashes
    container: Mapping[str, Any]
    inputs: Mapping[str, Any]
    artifacts: frozenset[str]  # which of the inputs are artifacts
    is_cached: bool


Scope = Mapping[str, Any]  # what the inputs of a group of tasks stand for


def tasks_of(specification: Specification, values: Mapping[str, Any]) -> Iterator[Task]:
    """Yield the tasks that run something, given the parameters of the pipeline; defaults stand for those not given."""
    known = {name: row.get("defaultValue") for name, row in specification.parameters.items()} | dict(values)
    document = specification.document
    for task, scope in _below(document, document["root"]["dag"], known):
        reference = task["componentRef"]["name"]
        component = document["components"][reference]
        executor = document["deploymentSpec"]["executors"][component["executorLabel"]]
        defaults = component.get("inputDefinitions", {}).get("parameters", {})
        artifacts = task.get("inputs", {}).get("artifacts", {})
        yield Task(
            name=task["taskInfo"]["name"],
            component=_NUMBER.sub("", reference.removeprefix("comp-")),
            container=executor.get("container", {}),
            inputs={key: row.get("defaultValue") for key, row in defaults.items()} | _inputs(task, scope),
            artifacts=frozenset(artifacts),
            is_cached=bool(task.get("cachingOptions", {}).get("enableCache")),
        )


def _below(
    document: Mapping[str, Any], dag: Mapping[str, Any], scope: Scope
) -> Iterator[tuple[Mapping[str, Any], Scope]]:
    for task in dag["tasks"].values():
        component = document["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from _below(document, component["dag"], _inputs(task, scope))
        else:
            yield task, scope


def _inputs(task: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    given = task.get("inputs", {})
    rows = {**given.get("parameters", {}), **given.get("artifacts", {})}
    return {key: _source(row, scope) for key, row in rows.items()}


def _source(row: Mapping[str, Any], scope: Scope) -> Any:
    """Return what an input of a task stands for: a constant, the output of a task, or an input of its group."""
    for kind, key in (("taskOutputParameter", "outputParameterKey"), ("taskOutputArtifact", "outputArtifactKey")):
        if kind in row:
            return Output(row[kind]["producerTask"], row[kind][key])
    if "runtimeValue" in row:
        return row["runtimeValue"].get("constant")
    return scope.get(str(row.get("componentInputParameter") or row.get("componentInputArtifact")))
