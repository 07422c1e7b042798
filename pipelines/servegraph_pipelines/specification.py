"""A compiled pipeline as a value: its parameters and steps, and the changes that are made to it before a run.

The format is KFP's IR (pipeline_spec.proto, schema version 2.1.0). Nothing here imports kfp.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from servegraph.errors import InputError
from servegraph.suggestion import did_you_mean

_NUMBER = re.compile(r"-\d+$")  # of the second and later uses of a component


@dataclass(frozen=True)
class PipelineStep:
    """One task that runs a container: its name in the pipeline, its component and executor in the specification."""

    name: str
    component: str
    executor: str


@dataclass(frozen=True)
class Specification:
    """`document` is the pipeline, `platforms` what it asks of one platform only. Both are never changed in place."""

    document: Mapping[str, Any]
    platforms: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the pipeline."""
        return str(self.document["pipelineInfo"]["name"])

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """The definitions of the pipeline's parameters by name."""
        found: Mapping[str, Any] = self.document["root"].get("inputDefinitions", {}).get("parameters", {})
        return found

    @property
    def steps(self) -> tuple[PipelineStep, ...]:
        """The tasks that run containers, each after those it depends on; those of groups are among them."""
        return tuple(self._steps(self.document["root"]["dag"]["tasks"]))

    @property
    def digest(self) -> str:
        """SHA-256 over what an engine is given; the version of the SDK that compiled it does not count."""
        document = {key: value for key, value in self.document.items() if key != "sdkVersion"}
        text = json.dumps([document, self.platforms], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def images(self) -> dict[str, str]:
        """Return the image of each executor that has one."""
        return {name: row["container"]["image"] for name, row in self._executors().items() if "container" in row}

    def with_images(self, images: Mapping[str, str], components: Collection[str] = ()) -> Specification:
        """Return the pipeline with other images: `images` has the new one of each old one.

        With `components`, like `deploy-version`, only the steps of these get them.
        """
        wanted = {f"comp-{name}" for name in components}
        chosen = {s.executor for s in self.steps if not wanted or _NUMBER.sub("", s.component) in wanted}
        document = _copied(self.document)
        for name in chosen:
            container = document["deploymentSpec"]["executors"][name]["container"]
            container["image"] = images.get(container["image"], container["image"])
        return replace(self, document=document)

    def without_caching(self) -> Specification:
        """Return the pipeline with every step run anew."""
        document = _copied(self.document)
        for dag in _dags(document):
            for task in dag["tasks"].values():
                task["cachingOptions"] = {}
        return replace(self, document=document)

    def with_resources(self, resources: Mapping[str, Mapping[str, Any]]) -> Specification:
        """Return the pipeline with the container resources (as in the IR) of some steps replaced.

        Raises:
            InputError: there is no such step (code `UNKNOWN_STEP`).
        """
        executors = {step.name: step.executor for step in self.steps}  # KFP gives each task one of its own
        document = _copied(self.document)
        for name, wanted in resources.items():
            if name not in executors:
                fix = f"{did_you_mean(name, executors)}It has {', '.join(executors)}."
                raise InputError(f"The pipeline {self.name} has no step {name!r}.", code="UNKNOWN_STEP", fix=fix)
            container = document["deploymentSpec"]["executors"][executors[name]]["container"]
            container["resources"] = {**container.get("resources", {}), **wanted}
        return replace(self, document=document)

    def with_pod_labels(self, labels: Mapping[str, str]) -> Specification:
        """Return the pipeline with labels on the pods of every step, which Kubernetes alone knows."""
        if not labels:
            return self
        platforms = _copied({"platforms": {}, **self.platforms})
        kubernetes = platforms["platforms"].setdefault("kubernetes", {})
        executors = kubernetes.setdefault("deploymentSpec", {}).setdefault("executors", {})
        for name in self.images():
            metadata = executors.setdefault(name, {}).setdefault("podMetadata", {})
            metadata["labels"] = {**metadata.get("labels", {}), **labels}
        return replace(self, platforms=platforms)

    def to_yaml(self) -> str:
        """Return the pipeline as KFP's YAML."""
        documents = [self.document, self.platforms] if self.platforms else [self.document]
        return yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True, width=120)

    def _executors(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.document["deploymentSpec"].get("executors", {})
        return found

    def _steps(self, tasks: Mapping[str, Any]) -> Iterator[PipelineStep]:
        for name in _in_order(tasks):
            component = tasks[name]["componentRef"]["name"]
            definition = self.document["components"][component]
            if "dag" in definition:
                yield from self._steps(definition["dag"]["tasks"])
            elif "container" in self._executors().get(definition["executorLabel"], {}):
                yield PipelineStep(name, component, definition["executorLabel"])


def _in_order(tasks: Mapping[str, Any]) -> list[str]:
    """Return the names of tasks, each after those it depends on; otherwise in the order of the file."""
    done: list[str] = []

    def visit(name: str) -> None:
        if name not in done:
            for before in tasks[name].get("dependentTasks", ()):
                visit(before)
            done.append(name)

    for name in tasks:
        visit(name)
    return done


def _dags(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield document["root"]["dag"]
    yield from (row["dag"] for row in document.get("components", {}).values() if "dag" in row)


def _copied(document: Mapping[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(dict(document))
