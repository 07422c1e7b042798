"""AI Platform Prediction (legacy, ml v1): a version of a model; the default version has all traffic that names none.

A version can be asked by its name, so the golden requests need no traffic. The service shares no traffic out. Of a
model only the description can be changed once it is made: what has to be remembered is a JSON object in there.
Source: the discovery document of ml v1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from servegraph.deploy_version.discovery import load as load_document
from servegraph.deploy_version.discovery import require_valid
from servegraph.deploy_version.explaining import check_explanation, config_of
from servegraph.deploy_version.faults import Rejected
from servegraph.deploy_version.google_api import check_labels
from servegraph.deploy_version.option_forms import check_forms
from servegraph.deploy_version.plan import DeployRequest, ModelFacts, Step, TargetName
from servegraph.deploy_version.remote import Answer, Goal, Seen, SeenVersion, Shift
from servegraph.deploy_version.rows import as_instances, as_outputs
from servegraph.deploy_version.targets.ai_platform_api import PREFIX, AiPlatformApi
from servegraph.deploy_version.targets.ai_platform_seen import (
    BYTES,
    IDENTITY,
    MEMORY,
    is_ours,
    model_id,
    order,
    recall,
    version_of,
)
from servegraph.errors import DeployRefused
from servegraph.machines.catalog import load
from servegraph.routine.interfaces import Routine as Adapter
from servegraph.routine.manifest import ADAPTER, FOLDER, Routine
from servegraph.savedmodel.golden_file import GoldenRequest

RUNTIME, PYTHON = "2.11", "3.7"  # the newest there was; R12 of the requirements, "Runtime" in the discovery document
UNUSED = frozenset({"image", "encryption_key", "network", "reservation", "spot", "resources"})


class AiPlatform:
    """One project, at the global endpoint or at a region's. See `Service` for the contract."""

    target: TargetName = "ai-platform"
    splits_traffic = False
    can_be_empty = False  # the first version is the default one

    def __init__(self, project: str, region: str | None, api: AiPlatformApi, today_is_fine: bool = False) -> None:
        """Name the place; `today_is_fine` where it is not Google's, whose service has ended."""
        self._parent, self._region, self._api = f"projects/{project}", region, api
        self._ignores_end = today_is_fine
        self.default_machine: str | None = "n1-standard-2" if region else "mls1-c1-m2"  # Version.machineType

    def check(self, request: DeployRequest, model: ModelFacts, today: date) -> tuple[str, ...]:
        """Refuse what the service never had, and the service itself once it has ended."""
        platform = load().platforms["ai-platform"]
        if platform.ended is not None and platform.ended <= today and not self._ignores_end:
            raise DeployRefused(
                f"{platform.title} was shut down on {platform.ended}.",
                code="PLATFORM_ENDED",
                fix="Deploy with --target vertex; this plan is what would have been sent.",
            )
        options, machine = request.service, request.config.machine_type or self.default_machine or ""
        check_labels(options.labels)
        check_forms(options, self._region)
        unused = UNUSED & options.given()
        if unused:
            raise _refused("NOT_FOR_THIS_TARGET", f"AI Platform has no use for {', '.join(sorted(unused))}.")
        if machine.startswith("mls1") == bool(self._region):
            where = "the global endpoint only, without --region" if self._region else "a region's endpoint only"
            raise _refused("WRONG_ENDPOINT", f"{machine} is on {where}.")
        if options.min_replicas < 1 and not machine.startswith("mls1"):
            raise _refused("BAD_REPLICAS", f"{machine} keeps at least one node; only MLS1 goes down to none.")
        if model.routine is not None and not machine.startswith("mls1"):
            raise _refused("ROUTINE_NEEDS_MLS1", f"{machine} takes no custom prediction routine; MLS1 does.")
        if model.routine is not None and model.routine.needs_servegraph:
            why = f"derives from a class of servegraph, which has no release for Python {PYTHON}"
            fix = "derive it from the Vertex SDK's Predictor."
            raise _refused("ROUTINE_NEEDS_SERVEGRAPH", f"{model.routine.predictor} {why}; {fix}")
        if options.service_account and model.routine is None:
            raise _refused("NOT_FOR_THIS_TARGET", "A service account goes with a custom prediction routine only.")
        check_explanation(self.target, options, model, date.min if self._ignores_end else today)
        return _runtime_warnings(options.runtime_version or RUNTIME, model.tensorflow_version)

    def validate(self, step: Step) -> None:
        """Hold the step's request to the published schema."""
        if step.method:
            require_valid(load_document("ml", "v1"), PREFIX + step.method, step.params, step.body)

    def layout(self, artifact_uri: str) -> str:
        """The files lie where the version points to."""
        return artifact_uri

    def see(self, name: str, goal: Goal | None) -> Seen:
        """Return what the service has of `name`."""
        resource = f"{self._parent}/models/{model_id(name)}"
        model = self._api.read("models.get", {"name": resource})
        if model is None:
            return Seen(name, own={"model": None, "memory": {}, "busy": ()})
        found = self._api.pages("models.versions.list", {"parent": resource}, "versions")
        operations = self._api.pages("operations.list", {"name": self._parent}, "operations")
        busy = [
            operation["name"]
            for operation in operations
            if not operation.get("done")
            and operation.get("metadata", {}).get("modelName") in (resource, model_id(name))
        ]
        memory = recall(model)
        versions = tuple(version_of(v, resource, memory) for v in sorted(found, key=order, reverse=True))
        return Seen(
            name=name,
            resource=resource,
            versions=versions,
            previous=memory.get("previous"),
            rolled_back_from=memory.get("rolled_back_from"),
            busy=tuple(busy),
            own={"model": model, "memory": memory, "links": {"model": resource}},
        )

    def next_version(self, seen: Seen) -> tuple[str, str]:
        """Return the number after the last that was ever used."""
        numbers = [int(version.version) for version in seen.versions if version.version.isdigit()]
        number = max([int(seen.own["memory"].get("last", 0)), *numbers]) + 1
        return str(number), f"{self._parent}/models/{model_id(seen.name)}/versions/v{number}"

    def prepare(self, goal: Goal, seen: Seen) -> tuple[Step, ...]:
        """Return the steps until the version is there and has answered; as the first one it is the default at once."""
        mine, steps = seen.of(goal.identity), []
        resource = f"{self._parent}/models/{model_id(seen.name)}"
        if seen.own["model"] is None:
            steps.append(self._create_model(goal))
        if mine is not None and mine.state == "failed":
            steps.append(_delete(mine))
        if mine is None or mine.state == "failed":
            name, _ = self.next_version(seen)
            body = self._version_body(goal, name)
            detail = f"version {name} of {resource}, {body['machineType']}"
            steps.append(Step("deploy", detail, body, "models.versions.create", {"parent": resource}))
        number = mine.version if mine else self.next_version(seen)[0]
        proved = seen.own["memory"].get("proved", [])
        if goal.model.golden_requests and number not in proved:
            if goal.needs_probe:
                steps.append(Step("probe", f"{goal.model.golden_requests} golden requests"))
            alive = [version.version for version in seen.versions]
            steps += self._remember(seen, {"proved": [*(old for old in proved if old in alive), number]}, number)
        return tuple(steps)

    def foresee(self, seen: Seen, steps: tuple[Step, ...]) -> Seen:
        """The description says more with each change, under a new etag; a first version has all traffic."""
        model, versions = seen.own["model"], seen.versions
        for step in steps:
            if step.method == "models.create":
                model = step.body
            elif step.method == "models.patch" and step.body is not None:
                known = {key: value for key, value in (model or {}).items() if key != "etag"}
                model = {**known, "description": step.body["description"]}
            elif step.method == "models.versions.create" and not seen.shares:
                versions = (replace(versions[0], share=100), *versions[1:])
        return replace(seen, versions=versions, own={**seen.own, "model": model, "memory": recall(model or {})})

    def shift(self, seen: Seen, shift: Shift) -> tuple[Step, ...]:
        """Return the steps that make a version the default one, and remember which was."""
        (winner,) = (version for version, share in shift.shares.items() if share)
        version = seen.version(winner)
        resource = version.resource if version else self.next_version(seen)[1]
        remembered = {"previous": shift.previous, "rolled_back_from": shift.rolled_back_from}
        detail = f"version {winner}: 100 %"
        default = Step("shift", detail, {}, "models.versions.setDefault", {"name": resource})
        return (*self._remember(seen, remembered), default)

    def label(self, seen: Seen, version: SeenVersion, labels: tuple[str, ...]) -> tuple[Step, ...]:
        """Return the step that writes down which labels point to the version."""
        if not labels:
            return ()
        known = dict(seen.own["memory"].get("labels", {}))
        return self._remember(seen, {"labels": known | dict.fromkeys(labels, version.version)}, version.version)

    def retire(self, seen: Seen, version: SeenVersion) -> tuple[Step, ...]:
        """Return the step that deletes a version: here it cannot be kept without running."""
        return (_delete(version),)

    def withdraw(self, goal: Goal, seen: Seen) -> tuple[Step, ...]:
        """Return the steps that delete a version, and a model that has no other."""
        mine = seen.of(goal.identity)
        steps = [] if mine is None else [_delete(mine)]
        others = [version for version in seen.versions if version is not mine]
        return (*steps, *(() if others else self._delete_model(seen)))

    def dismantle(self, seen: Seen) -> tuple[Step, ...]:
        """Return the steps that delete all versions, the default one last, and a model of ours."""
        in_order = sorted(seen.versions, key=lambda version: version.share)
        return (*map(_delete, in_order), *self._delete_model(seen))

    def perform(self, step: Step) -> None:
        """Send the step's request and wait for its end."""
        if step.action == "wait":
            for operation in step.params["operations"].split(","):
                self._api.running.wait(operation, "the operation in flight")
        else:
            self._api.run(step.method, step.params, step.body)

    def ask(self, goal: Goal, seen: Seen, request: GoldenRequest) -> Answer | None:
        """Ask the version by its name."""
        instances, mine = as_instances(request), seen.of(goal.identity)
        if instances is None or mine is None:
            return None
        answer = self._api.call("predict", {"name": mine.resource}, {"instances": instances})
        if "error" in answer:  # of the container, with HTTP 200
            raise Rejected(
                f"{mine.resource} answered: {answer['error']}", fix="Mend the model, or the routine that answers."
            )
        return Answer(as_outputs(answer.get("predictions", []), request, goal.model.signatures), mine.version)

    def cancel(self, *operations: str) -> None:
        """Cancel these operations, or the one that is waited for."""
        self._api.running.cancel(*operations)

    def _delete_model(self, seen: Seen) -> tuple[Step, ...]:
        """The step that deletes the model; none where somebody else made it."""
        if not is_ours(seen.own["model"] or {}):
            return ()
        return (Step("remove", seen.resource, None, "models.delete", {"name": seen.resource}),)

    def _create_model(self, goal: Goal) -> Step:
        body: dict[str, Any] = {"name": model_id(goal.request.name), "description": MEMORY + " {}"}
        if self._region:
            body["regions"] = [self._region]
        if goal.request.service.labels:
            body["labels"] = dict(goal.request.service.labels)
        return Step("create model", body["name"], body, "models.create", {"parent": self._parent})

    def _version_body(self, goal: Goal, name: str) -> dict[str, Any]:
        options, config = goal.request.service, goal.config
        body: dict[str, Any] = {
            "name": f"v{name}",
            "description": f"{goal.model.digest} by servegraph",
            "deploymentUri": goal.artifact_uri,
            "runtimeVersion": options.runtime_version or RUNTIME,
            "pythonVersion": options.python_version or PYTHON,
            "machineType": config.machine_type or self.default_machine,
            "autoScaling": {"minNodes": options.min_replicas},
            "labels": {**dict(options.labels), IDENTITY: goal.identity, BYTES: str(goal.model.size_bytes)},
        }
        if options.max_replicas:
            body["autoScaling"]["maxNodes"] = options.max_replicas
        if config.accelerator_type:
            accelerator = load().accelerator(config.accelerator_type).name
            body["acceleratorConfig"] = {"type": accelerator, "count": str(config.accelerator_count)}
        routine = goal.model.routine
        if routine is not None:  # a framework must not be named then
            package = f"{goal.artifact_uri}/{FOLDER}/{routine.sdist}"  # it is uploaded with the model
            body |= {"predictionClass": _prediction_class(routine), "packageUris": [package]}
            body |= {"serviceAccount": options.service_account} if options.service_account else {}
        else:
            body["framework"] = "TENSORFLOW"
        explanation = config_of(options)
        if explanation is not None:
            body["explanationConfig"] = explanation
        return body

    def _remember(self, seen: Seen, changes: Mapping[str, Any], newest: str = "0") -> tuple[Step, ...]:
        """The step that writes `changes` into the model's description; none where they are there."""
        memory = {key: value for key, value in {**seen.own["memory"], **changes}.items() if value}
        numbers = [int(version.version) for version in seen.versions if version.version.isdigit()]
        memory["last"] = max([int(memory.get("last", 0)), int(newest), *numbers])
        if memory == seen.own["memory"]:
            return ()
        model = seen.own["model"] or {}
        said = str(model.get("description", "")).split(MEMORY)[0]
        body = {"description": f"{said}{MEMORY} {json.dumps(memory, sort_keys=True)}"}
        if model.get("etag"):
            body["etag"] = model["etag"]
        params = {"name": f"{self._parent}/models/{model_id(seen.name)}", "updateMask": "description"}
        return (Step("remember", json.dumps(dict(changes)), body, "models.patch", params),)


def _prediction_class(routine: Routine) -> str:
    if routine.interface == "from_path":
        return routine.predictor.replace(":", ".")
    return f"{ADAPTER}.{Adapter.__name__}"


def _delete(version: SeenVersion) -> Step:
    return Step("remove", version.resource, None, "models.versions.delete", {"name": version.resource})


def _runtime_warnings(runtime: str, saved_by: str) -> tuple[str, ...]:
    has, needs = (re.match(r"(\d+)\.(\d+)", text) for text in (runtime, saved_by))
    if has is None or needs is None or tuple(map(int, has.groups())) >= tuple(map(int, needs.groups())):
        return ()
    return (f"RUNTIME_OLDER: runtime {runtime} has an older TensorFlow than {saved_by}, which saved the model.",)


def _refused(code: str, message: str) -> DeployRefused:
    return DeployRefused(message, code=code, fix="Change that option, or deploy with --target vertex.")
