"""KServe: an InferenceService of the model's name, whose newest revision gets its traffic by canary percentage.

Two versions share the traffic at most: the newest revision and the one rolled out before it. With no traffic the
newest one has an address of its own (tag routing), where the golden requests are asked. Versions that do not run are
remembered with their whole predictor, so going back to one is one request. Canaries need KServe's Knative mode.
Source: github.com/kserve/kserve, pkg/apis/serving/v1beta1/component.go and inference_service_status.go.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timezone
from typing import Any

from servegraph.deploy_version import rollout
from servegraph.deploy_version.faults import CannotServe, NoCapacity, is_no_capacity
from servegraph.deploy_version.plan import DeployRequest, ModelFacts, Step, TargetName
from servegraph.deploy_version.remote import Answer, Goal, Seen, SeenVersion, Shift, State
from servegraph.deploy_version.rows import as_columns
from servegraph.deploy_version.targets import kserve_objects as objects
from servegraph.deploy_version.targets import kserve_status as status
from servegraph.deploy_version.targets.kserve_api import KserveApi
from servegraph.deploy_version.targets.kserve_objects import Memory
from servegraph.errors import DeployRefused
from servegraph.savedmodel.golden_file import GoldenRequest
from servegraph.serve.state import ServingConfig

READY_TIMEOUT_S = 3600.0
_EXPLAINING = {"explain", "explain_output", "explanation"}
UNUSED = frozenset({"python_version", "encryption_key", "network", "reservation", "spot", *_EXPLAINING})


class Kserve:
    """One namespace of a cluster. See `Service` for the contract."""

    target: TargetName = "kserve"
    default_machine: str | None = None
    splits_traffic = True
    can_be_empty = False  # what is the only revision has all traffic

    def __init__(self, api: KserveApi) -> None:
        """Name the place; nothing is sent."""
        self._api = api

    def check(self, request: DeployRequest, model: ModelFacts, today: date) -> tuple[str, ...]:
        """Refuse what an InferenceService has no use for."""
        unused = UNUSED & request.service.given()
        if unused:
            raise DeployRefused(
                f"KServe has no use for {', '.join(sorted(unused))}.",
                code="NOT_FOR_THIS_TARGET",
                fix="Leave it out; nodes are chosen by the cluster.",
            )
        if model.routine is not None:
            raise DeployRefused(
                f"TensorFlow Serving, which KServe runs, has no place for the routine {model.routine.predictor}.",
                code="NOT_FOR_THIS_TARGET",
                fix="Deploy to vertex or local, or deploy the model without its routine.",
            )
        return ()

    def validate(self, step: Step) -> None:
        """Let the API server check the object against the schema that the cluster has, without storing it."""
        if step.params.get("kind") == "InferenceService" and step.body is not None:
            self._api.try_out(step.method, "InferenceService", step.params["name"], step.body)

    def layout(self, artifact_uri: str) -> str:
        """TF Serving looks for the files in a directory that is called by a number."""
        return f"{artifact_uri}/1"

    def see(self, name: str, goal: Goal | None) -> Seen:
        """Return what the cluster and the config map have of `name`."""
        found = self._api.get("InferenceService", objects.object_name(name))
        remembered = self._api.get("ConfigMap", f"{objects.object_name(name)}-servegraph")
        current = status.current(found)
        memory = objects.told(found) if found and current and not remembered else objects.recall(remembered)
        state, reason = status.state(found)
        shares = status.shares(found, memory, state)
        versions = []
        foreign = () if found is None or current else (self._foreign(name, found, state, reason),)
        for number, known in sorted(memory.versions.items(), key=lambda item: int(item[0]), reverse=True):
            labels = tuple(sorted(label for label, of in memory.labels.items() if of == number))
            its_state: State = "ready" if current and (shares.get(number) or known.get("proved")) else "stored"
            if number == current and not shares.get(number):
                its_state = state
            versions.append(self._version(name, number, known, its_state, shares, labels, reason))
        url = (found or {}).get("status", {}).get("url", "")
        return Seen(
            name=name,
            resource=self._resource(name) if found or remembered else "",
            versions=(*versions, *foreign),
            previous=memory.previous,
            rolled_back_from=memory.rolled_back_from,
            own={
                "object": found,
                "map": remembered,
                "memory": memory,
                "current": current,
                "state": state,
                "links": {"inferenceservice": self._resource(name), **({"url": url} if url else {})} if found else {},
            },
        )

    def next_version(self, seen: Seen) -> tuple[str, str]:
        """Return the number after the last that was ever used."""
        memory: Memory = seen.own["memory"]
        number = max([memory.last, *map(int, memory.versions)]) + 1
        return str(number), f"{self._resource(seen.name)}@{number}"

    def prepare(self, goal: Goal, seen: Seen) -> tuple[Step, ...]:
        """Return the steps until the version is the newest revision, ready, without traffic, and has answered."""
        if seen.foreign:
            fix = "Deploy under another name, or remove the InferenceService first."
            raise rollout.foreign_runs(seen, seen.foreign, fix)
        mine, memory, live = seen.of(goal.identity), seen.own["memory"], seen.live
        number = mine.version if mine else self.next_version(seen)[0]
        if number in seen.shares and number != seen.own["current"]:
            return ()  # it is what a canary shares the traffic with
        known = self._known(goal, memory, number)
        steps: list[Step] = []
        if number != seen.own["current"]:
            if len(seen.shares) > 1:
                raise DeployRefused(
                    f"A canary of {seen.name} is under way: {seen.shares}. KServe shares traffic between two versions.",
                    code="CANARY_IN_PROGRESS",
                    fix="Deploy that version with --traffic 100, or roll it back, first.",
                )
            after = self._with_version(memory, number, known, live)
            steps += objects.remember(seen.name, seen.own["map"], memory, after, f"version {number}")
            steps.append(objects.apply(seen.name, seen.own["object"], number, known, 0 if live else None, "deploy"))
        elif mine is not None and mine.state == "failed":
            raise _cannot_serve(f"Version {number} of {seen.name}", mine.reason)
        if mine is None or number != seen.own["current"] or seen.own["state"] == "starting":
            steps.append(self._awaiting(seen.name, number))
        if not known.get("proved"):
            if goal.needs_probe:
                steps.append(Step("probe", f"{goal.model.golden_requests} golden requests"))
            own = self.foresee(seen, tuple(steps)).own
            memory = own["memory"]
            after = replace(memory, versions={**memory.versions, number: {**known, "proved": True}})
            steps += objects.remember(seen.name, own["map"], memory, after, f"version {number} may serve")
        return tuple(steps)

    def foresee(self, seen: Seen, steps: tuple[Step, ...]) -> Seen:
        """Both objects are as the steps write them; a first version has all traffic."""
        own, versions = dict(seen.own), seen.versions
        for step in steps:
            if step.body is not None and step.body["kind"] == "ConfigMap":
                own |= {"map": step.body, "memory": objects.recall(step.body)}
            elif step.body is not None:
                own |= {"object": step.body, "current": status.current(step.body)}
                if not seen.shares:
                    versions = tuple(replace(v, share=100) if v.version == own["current"] else v for v in versions)
        return replace(seen, versions=versions, own=own)

    def shift(self, seen: Seen, shift: Shift) -> tuple[Step, ...]:
        """Return the steps that change the canary percentage, or bring another version back; and remember the way."""
        memory, found, current = seen.own["memory"], seen.own["object"], seen.own["current"]
        live, base = seen.live, memory.base
        detail = ", ".join(f"version {version}: {share} %" for version, share in shift.shares.items())
        winner = max(shift.shares, key=lambda version: shift.shares[version])
        with_traffic = {version for version, share in shift.shares.items() if share}
        in_canary = current != winner and seen.shares.get(current or "", 0) < 100
        if with_traffic <= {current, base} and (current in with_traffic or in_canary):
            remember = self._remember_way(seen, shift, base)
            percent = shift.shares.get(current or "", 0)
            return (*remember, objects.set_canary(found, None if percent == 100 else percent, detail))
        remember = self._remember_way(seen, shift, live.version if live else None)
        step = objects.apply(seen.name, found, winner, memory.versions[winner], None, "shift")
        return (*remember, step, self._awaiting(seen.name, winner))

    def label(self, seen: Seen, version: SeenVersion, labels: tuple[str, ...]) -> tuple[Step, ...]:
        """Return the step that writes down which labels point to the version."""
        if not labels:
            return ()
        memory: Memory = seen.own["memory"]
        after = replace(memory, labels={**memory.labels, **dict.fromkeys(labels, version.version)})
        detail = f"version {version.version}: {', '.join(labels)}"
        return objects.remember(seen.name, seen.own["map"], memory, after, detail)

    def retire(self, seen: Seen, version: SeenVersion) -> tuple[Step, ...]:
        """Return the step that forgets a version; KServe has scaled it to nothing."""
        return self._forget(seen, version.version)

    def withdraw(self, goal: Goal, seen: Seen) -> tuple[Step, ...]:
        """Return the steps that put the version before in its place, or remove all where there is none."""
        mine, memory, current = seen.of(goal.identity), seen.own["memory"], seen.own["current"]
        if mine is None:
            return () if seen.versions else self.dismantle(seen)
        if mine.version != current:
            return self._forget(seen, mine.version) if len(seen.versions) > 1 else self.dismantle(seen)
        others = [version.version for version in seen.serving if version.version != mine.version]
        base = memory.base if memory.base in others else next(iter(others), None)
        if base is None:
            return self.dismantle(seen)
        step = objects.apply(seen.name, seen.own["object"], base, memory.versions[base], None, "restore")
        # Until its new revision is ready the old one serves on: nothing has to be waited for.
        return (step, *self._forget(seen, mine.version))

    def dismantle(self, seen: Seen) -> tuple[Step, ...]:
        """Return the steps that remove the InferenceService, where it is ours, and its memory."""
        name = objects.object_name(seen.name)
        steps = []
        if seen.own["object"] is not None and not seen.foreign:
            params = {"kind": "InferenceService", "name": name}
            steps.append(Step("remove", f"InferenceService {name}", None, "delete", params))
        if seen.own["map"] is not None:
            params = {"kind": "ConfigMap", "name": f"{name}-servegraph"}
            steps.append(Step("remove", f"ConfigMap {name}-servegraph", None, "delete", params))
        return tuple(steps)

    def perform(self, step: Step) -> None:
        """Send the step's object, or wait for the newest revision."""
        kind, name = step.params["kind"], step.params["name"]
        if step.action == "await":
            self._await(name)
        else:
            self._api.send(step.method, kind, name, step.body)

    def ask(self, goal: Goal, seen: Seen, request: GoldenRequest) -> Answer | None:
        """Ask the newest revision at its own address."""
        url = status.address(seen.own["object"])
        if url is None or request.signature_name is None:
            return None
        name = objects.object_name(seen.name)
        document = {"signature_name": request.signature_name, "inputs": request.inputs}
        answer = self._api.predict(f"{url.rstrip('/')}/v1/models/{name}:predict", document)
        return Answer(as_columns(answer, request, goal.model.signatures), seen.own["current"])

    def cancel(self, *operations: str) -> None:
        """Nothing runs here that a look does not see."""

    def _await(self, name: str) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            state, reason = status.state(self._api.get("InferenceService", name))
            if state == "ready":
                return
            if state == "failed":
                raise _cannot_serve(name, reason)
            if is_no_capacity(reason):
                raise NoCapacity(f"{name} cannot be scheduled: {reason}", fix="Add nodes, or ask for less.")
            if time.monotonic() > deadline_s:
                raise CannotServe(
                    f"{name} was not ready after {READY_TIMEOUT_S:g} s: {reason}",
                    fix="Its events and the logs of its pods say why; mend that, then deploy again.",
                )
            time.sleep(self._api.poll_s)

    def _awaiting(self, name: str, version: str) -> Step:
        detail = f"version {version} of {self._resource(name)} to be ready"
        return Step("await", detail, params={"kind": "InferenceService", "name": objects.object_name(name)})

    def _known(self, goal: Goal, memory: Memory, number: str) -> Mapping[str, Any]:
        return memory.versions.get(number) or objects.entry(goal, datetime.now(timezone.utc).date().isoformat())

    def _with_version(self, memory: Memory, number: str, known: Mapping[str, Any], live: SeenVersion | None) -> Memory:
        versions = {**memory.versions, number: known}
        base = live.version if live else None
        return replace(memory, versions=versions, base=base, last=max(memory.last, int(number)))

    def _remember_way(self, seen: Seen, shift: Shift, base: str | None) -> tuple[Step, ...]:
        memory: Memory = seen.own["memory"]
        after = replace(memory, previous=shift.previous, rolled_back_from=shift.rolled_back_from, base=base)
        return objects.remember(seen.name, seen.own["map"], memory, after, f"the version before is {shift.previous}")

    def _forget(self, seen: Seen, number: str) -> tuple[Step, ...]:
        memory: Memory = seen.own["memory"]
        after = replace(
            memory,
            versions={version: known for version, known in memory.versions.items() if version != number},
            labels={label: version for label, version in memory.labels.items() if version != number},
            previous=None if memory.previous == number else memory.previous,
            rolled_back_from=None if memory.rolled_back_from == number else memory.rolled_back_from,
            base=None if memory.base == number else memory.base,
        )
        return objects.remember(seen.name, seen.own["map"], memory, after, f"version {number} is gone")

    def _version(
        self,
        name: str,
        number: str,
        known: Mapping[str, Any],
        state: State,
        shares: Mapping[str, int],
        labels: tuple[str, ...],
        reason: str,
    ) -> SeenVersion:
        return SeenVersion(
            version=number,
            resource=f"{self._resource(name)}@{number}",
            identity=known["identity"],
            digest=known["digest"],
            artifact_uri=known["uri"],
            created=known["created"],
            size_bytes=known["size_bytes"],
            config=ServingConfig(**known["config"]),
            state=state,
            share=shares.get(number, 0),
            labels=labels,
            reason=reason,
        )

    def _foreign(self, name: str, found: Mapping[str, Any], state: State, reason: str) -> SeenVersion:
        """An InferenceService that somebody else made is one version, called as its newest revision is."""
        created = found["metadata"].get("creationTimestamp", "")
        share = 100 if state == "ready" else 0
        return SeenVersion(
            status.revision(found), self._resource(name), created=created, state=state, share=share, reason=reason
        )

    def _resource(self, name: str) -> str:
        return f"inferenceservices/{self._api.namespace}/{objects.object_name(name)}"


def _cannot_serve(what: str, reason: str) -> CannotServe:
    return CannotServe(f"{what} cannot be served: {reason}", fix="Mend the model, the image or its resources.")
