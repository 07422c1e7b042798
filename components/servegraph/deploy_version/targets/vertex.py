"""Vertex AI: a version is a version of a model in the registry, deployed to the endpoint of the model's name.

A version without traffic cannot be asked on its endpoint: predictions follow the traffic. Golden requests are
therefore asked on an endpoint of their own, `NAME-probe`, which is there for that time only. Once the version has
traffic, answers say which version gave them, and are compared again.
Sources: the discovery document of aiplatform v1; github.com/googleapis/python-aiplatform/issues/827 (no way to
address a deployed model past the split).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timezone
from typing import Any

from servegraph import __version__
from servegraph.deploy_version.cloud_logging import CloudLogging, of_endpoint
from servegraph.deploy_version.discovery import load as load_document
from servegraph.deploy_version.discovery import require_valid
from servegraph.deploy_version.explaining import check_explanation
from servegraph.deploy_version.faults import CannotServe
from servegraph.deploy_version.google_api import check_labels
from servegraph.deploy_version.option_forms import check_forms, check_together
from servegraph.deploy_version.plan import DeployRequest, ModelFacts, Step, TargetName
from servegraph.deploy_version.prebuilt import check_image
from servegraph.deploy_version.remote import STABLE, Answer, Goal, Seen, SeenVersion, Shift
from servegraph.deploy_version.routine_gate import check_wheels
from servegraph.deploy_version.rows import as_instances, as_outputs
from servegraph.deploy_version.targets import vertex_plan as requests
from servegraph.deploy_version.targets.vertex_api import PREFIX, VertexApi
from servegraph.deploy_version.targets.vertex_seen import foreign_on, links_of, named_by, only, versions_of
from servegraph.errors import DeployRefused, ServegraphError
from servegraph.explanations.rules import is_prebuilt
from servegraph.savedmodel.golden_file import GoldenRequest

LAST_LINES = 15  # of a container's log; an error is one line of 2,000 characters
UNUSED = frozenset({"runtime_version", "python_version", "resources"})


class Vertex:
    """One project and region. See `Service` for the contract."""

    target: TargetName = "vertex"
    default_machine: str | None = "n1-standard-2"  # the service's own, for a DeployedModel
    splits_traffic = True
    can_be_empty = True

    def __init__(self, project: str, region: str, api: VertexApi, logging: CloudLogging | None = None) -> None:
        """Name the place; nothing is sent."""
        self._logging = logging or CloudLogging(project)
        self._parent, self._region, self._api = f"projects/{project}/locations/{region}", region, api
        # Vertex AI runs images of Artifact Registry only: the published one has to be copied there once.
        self._image = f"{region}-docker.pkg.dev/{project}/servegraph/python-serving:{__version__}"

    def check(self, request: DeployRequest, model: ModelFacts, today: date) -> tuple[str, ...]:
        """Refuse what Vertex AI has no use for, too few replicas, and images that cannot load the model."""
        requests.check_aliases(request.labels)
        check_labels(request.service.labels)
        check_forms(request.service, self._region)
        check_together(request)
        unused = UNUSED & request.service.given()
        if unused:
            raise DeployRefused(
                f"Vertex AI has no use for {', '.join(sorted(unused))}.",
                code="NOT_FOR_THIS_TARGET",
                fix="Leave it out; code of your own goes into an image of your own, with --image.",
            )
        if request.service.min_replicas < 1:
            raise DeployRefused(
                "Vertex AI keeps at least one replica of what is deployed.",
                code="BAD_REPLICAS",
                fix="Give --min-replicas 1 or more.",
            )
        image = request.service.image or self._image
        check_explanation(self.target, request.service, model, today, image)
        on_gpu = any(config.accelerator_type for config in (request.config, *request.fallbacks))
        check_image(image, model.tensorflow_version, today, on_gpu=on_gpu)
        if model.routine is not None:
            if is_prebuilt(image):
                raise DeployRefused(
                    f"{image} serves graphs only, and the model has the routine {model.routine.predictor}.",
                    code="ROUTINE_NEEDS_OUR_IMAGE",
                    fix="Leave --image out, or give one that is built from servegraph's serving image.",
                )
            check_wheels(model.routine)
        if on_gpu and request.service.image is None:
            built = "where it was built with _GPU=true (cloudbuild.yaml), which its name does not say"
            return (f"IMAGE_FOR_GPU: {image} uses the GPU only {built}.",)
        return ()

    def validate(self, step: Step) -> None:
        """Hold the step's request to the published schema."""
        if step.method:
            require_valid(load_document("aiplatform", "v1"), PREFIX + step.method, step.params, step.body)

    def layout(self, artifact_uri: str) -> str:
        """The files lie where the version points to."""
        return artifact_uri

    def see(self, name: str, goal: Goal | None) -> Seen:
        """Return what the registry and the endpoints have of `name`."""
        endpoint, model = self._find("endpoints", name), self._find("models", name)
        probe = self._api.read("endpoints.get", {"name": f"{self._parent}/endpoints/{self._probe_id(name)}"})
        model_name = model["name"].split("@")[0] if model else None
        registered = self._api.pages("models.listVersions", {"name": model_name}, "models") if model_name else []
        known = versions_of(registered, endpoint)
        versions = (*known, *foreign_on(endpoint, known))
        labels = (endpoint or {}).get("labels", {})
        busy = [op for place in (model, endpoint, probe) if place for op in self._api.operations(place["name"])]
        return Seen(
            name=name,
            resource=endpoint["name"] if endpoint else model_name or "",
            versions=versions,
            previous=named_by(labels.get(requests.PREVIOUS), versions),
            rolled_back_from=named_by(labels.get(requests.ROLLED_BACK), versions),
            busy=tuple(busy),
            own={
                "endpoint": endpoint,
                "probe": probe,
                "model": model_name,
                "registered": known,
                "aliases": {m["versionId"]: m.get("versionAliases", []) for m in registered},
                "links": links_of(self._parent, endpoint, model_name),
            },
        )

    def next_version(self, seen: Seen) -> tuple[str, str]:
        """Return what the registry will call the next version: it counts."""
        numbers = [int(v.version) for v in seen.own["registered"] if v.version.isdigit()]
        number = str(max(numbers, default=0) + 1)
        model = seen.own["model"] or f"{self._parent}/models/{requests.slug(seen.name)}"
        return number, f"{model}@{number}"

    def prepare(self, goal: Goal, seen: Seen) -> tuple[Step, ...]:
        """Return the steps until the version runs on the endpoint without traffic."""
        mine, endpoint, name = seen.of(goal.identity), seen.own["endpoint"], goal.request.name
        if endpoint is not None:
            requests.check_endpoint(endpoint, goal.request.service)
        if mine is not None and mine.state == "ready":
            return self._clear_probe(seen)
        if seen.serving and requests.is_private(endpoint):
            raise DeployRefused(
                f"The endpoint {endpoint['name']} is in a private network, where one version runs, and "
                f"{seen.serving[0].version} does.",
                code="ONE_VERSION_ONLY",
                fix="Remove that with `servegraph undeploy --all` first, or give another --name.",
            )
        options, steps = goal.request.service, []
        image = options.image or self._image
        if mine is None:
            steps.append(requests.upload_model(self._parent, goal, seen, image))
        version = mine.resource if mine else self.next_version(seen)[1]
        if goal.needs_probe:
            steps += self._probe_steps(goal, seen, version)
        else:
            steps += self._clear_probe(seen)
        endpoint_name = endpoint["name"] if endpoint else f"{self._parent}/endpoints/{requests.slug(name)}"
        if endpoint is None:
            steps.append(requests.create_endpoint(self._parent, name, requests.slug(name), options))
        split = {v.handle: v.share for v in seen.serving if v.handle}
        return (*steps, requests.deploy_model(endpoint_name, goal, version, split))

    def foresee(self, seen: Seen, steps: tuple[Step, ...]) -> Seen:
        """The endpoint gets a new etag with each change, which nobody knows before.

        What is deployed to a private one has all traffic at once.
        """
        endpoint, versions = seen.own["endpoint"], seen.versions
        for step in steps:
            if step.method == "endpoints.create" and step.params["endpointId"] == requests.slug(seen.name):
                made = dict(step.body or {})
                kept = {key: made[key] for key in ("labels", "network") if key in made}
                endpoint = {"name": f"{self._parent}/endpoints/{requests.slug(seen.name)}", **kept}
            elif endpoint is not None and endpoint["name"] in (step.params.get("endpoint"), step.params.get("name")):
                changed = {"labels": step.body["labels"]} if step.body and "labels" in step.body else {}
                endpoint = {**{key: value for key, value in endpoint.items() if key != "etag"}, **changed}
                if step.method == "endpoints.deployModel" and step.body and requests.is_private(endpoint):
                    handle = step.body["deployedModel"]["id"]
                    versions = tuple(
                        replace(v, share=100) if requests.deployed_id(v.identity) == handle else v for v in versions
                    )
        return replace(seen, versions=versions, own={**seen.own, "endpoint": endpoint})

    def shift(self, seen: Seen, shift: Shift) -> tuple[Step, ...]:
        """Return the step that shares the traffic out; none where there is nothing to share."""
        if requests.is_private(seen.own["endpoint"]):
            return ()
        planned = {"name": f"{self._parent}/endpoints/{requests.slug(seen.name)}", "labels": {requests.OURS: "made"}}
        return (requests.patch_traffic(seen.own["endpoint"] or planned, seen, shift),)

    def label(self, seen: Seen, version: SeenVersion, labels: tuple[str, ...]) -> tuple[Step, ...]:
        """Return the step that moves aliases; the stable version is the registry's default as well."""
        if not labels:
            return ()
        model = seen.own["model"] or f"{self._parent}/models/{requests.slug(seen.name)}"
        aliases = (*labels, requests.DEFAULT) if STABLE in labels else labels
        return (requests.merge_aliases(version, model, aliases),)

    def retire(self, seen: Seen, version: SeenVersion) -> tuple[Step, ...]:
        """Return the step that stops a version; in the registry it stays."""
        return (requests.undeploy_model(seen.own["endpoint"]["name"], version.handle, version.version),)

    def withdraw(self, goal: Goal, seen: Seen) -> tuple[Step, ...]:
        """Return the steps that leave nothing of a version without traffic, nor an endpoint of ours without any."""
        mine, endpoint = seen.of(goal.identity), seen.own["endpoint"]
        steps = [*self._clear_probe(seen)]
        if mine is not None and mine.state == "ready":
            steps += self.retire(seen, mine)
        if mine is not None:
            steps += requests.remove_version(seen, mine)
        others = [version for version in seen.serving if version is not mine]
        if not others and requests.is_ours(endpoint):
            steps.append(requests.remove_endpoint(endpoint["name"]))
        return tuple(steps)

    def dismantle(self, seen: Seen) -> tuple[Step, ...]:
        """Return the steps that remove an endpoint of ours, and the model, or of a foreign one our versions."""
        endpoint = seen.own["endpoint"]
        steps = [*self._clear_probe(seen)]
        if any(seen.shares.values()):
            steps += self.shift(seen, Shift({}, None))
        steps += [step for version in seen.serving for step in self.retire(seen, version)]
        if requests.is_ours(endpoint):
            steps.append(requests.remove_endpoint(endpoint["name"]))
        return (*steps, *requests.remove_ours(seen))

    def perform(self, step: Step) -> None:
        """Send the step's request and wait for its end."""
        if step.action == "wait":
            for operation in step.params["operations"].split(","):
                self._api.running.wait(operation, "the operation in flight")
            return
        since = datetime.now(timezone.utc)
        try:
            self._api.run(step.method, step.params, step.body)
        except CannotServe as fault:
            if step.method == "endpoints.deployModel":
                fault.message = f"{fault.message} {self._container_said(step.params['endpoint'], since)}"
            raise

    def ask(self, goal: Goal, seen: Seen, request: GoldenRequest) -> Answer | None:
        """Ask on the endpoint of the probe while there is one, else through the shared traffic."""
        instances = as_instances(request)
        if instances is None:
            return None
        place = seen.own["probe"] or seen.own["endpoint"]
        if requests.is_private(place):
            return None  # it is reached from within that network only
        answer = self._api.call("endpoints.predict", {"endpoint": place["name"]}, {"instances": instances})
        by = answer.get("deployedModelId")
        version = next((v.version for v in seen.versions if v.handle and v.handle == by), None)
        outputs = as_outputs(answer.get("predictions", []), request, goal.model.signatures)
        return Answer(outputs, version if not seen.own["probe"] else None)

    def cancel(self, *operations: str) -> None:
        """Cancel these operations, or the one that is waited for."""
        self._api.running.cancel(*operations)

    def _container_said(self, endpoint: str, since: datetime) -> str:
        """What the container printed last: the service's own error says where to look for it."""
        try:
            lines = self._logging.last_lines(of_endpoint(endpoint, since), LAST_LINES)
        except ServegraphError as exc:  # to read logs is another permission than to deploy
            return f"Its log could not be read: {exc.message}"
        return f"The container's last lines: {' | '.join(lines)}" if lines else "The container printed nothing."

    def _find(self, collection: str, name: str) -> dict[str, Any] | None:
        """The resource with our id, however somebody renamed it; else the only one called `name`, somebody else's."""
        own = {"name": f"{self._parent}/{collection}/{requests.slug(name)}"}
        named = {"parent": self._parent, "filter": f'display_name="{name}"'}
        found = self._api.read(f"{collection}.get", own)
        return found or only(self._api.pages(f"{collection}.list", named, collection), name)

    def _probe_id(self, name: str) -> str:
        return requests.slug(f"{name} probe")  # no name has a space: it is no other model's endpoint

    def _probe_steps(self, goal: Goal, seen: Seen, version: str) -> list[Step]:
        """The endpoint for the golden requests, the version on it, the requests, and their end."""
        name, probe, handle = goal.request.name, seen.own["probe"], requests.deployed_id(goal.identity)
        probe_id = self._probe_id(name)
        place = probe["name"] if probe else f"{self._parent}/endpoints/{probe_id}"
        running = [deployed["id"] for deployed in (probe or {}).get("deployedModels", [])]
        steps = []
        if probe is None:
            options = replace(goal.request.service, network=None)
            steps.append(requests.create_endpoint(self._parent, requests.probe_name(name), probe_id, options))
        if any(other != handle for other in running):  # of a deploy that was killed
            return [*self._clear_probe(seen)]
        if handle not in running:
            steps.append(requests.deploy_model(place, goal, version, {}, alone=True))
        elif not (probe or {}).get("trafficSplit"):  # closed by a run that was killed then
            steps.append(requests.patch_split(place, {handle: 100}, "open", "takes the golden requests"))
        steps.append(Step("probe", f"{goal.model.golden_requests} golden requests on {place}"))
        steps.append(requests.patch_split(place, {}, "close", "takes no more requests"))
        steps.append(requests.undeploy_model(place, handle, version.split("@")[-1]))
        return [*steps, requests.remove_endpoint(place)]

    def _clear_probe(self, seen: Seen) -> tuple[Step, ...]:
        probe = seen.own["probe"]
        if probe is None:
            return ()
        running = [deployed["id"] for deployed in probe.get("deployedModels", [])]
        is_open = probe.get("trafficSplit") and running
        close = requests.patch_split(probe["name"], {}, "close", "takes no more requests")
        return (
            *((close,) if is_open else ()),
            *(requests.undeploy_model(probe["name"], handle, "on probation") for handle in running),
            requests.remove_endpoint(probe["name"]),
        )
