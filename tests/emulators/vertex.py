"""An emulated Vertex AI on loopback: models with versions and aliases, endpoints, deployments, predictions.

Routes and bodies are held to the published discovery document; what the document says in words is enforced here: the
traffic split sums to 100, ids and aliases have their form, only a version without traffic is undeployed, and so on.
Predictions follow the traffic split, as on the service.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from google.cloud import aiplatform_v1
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from tests.emulators.google_api import Failed, GoogleService, Refused, need, now
from tests.emulators.http_server import Request

from servegraph.deploy_version.discovery import load

CONTAINER_LOG = re.compile(
    r'resource\.type="aiplatform\.googleapis\.com/Endpoint" AND resource\.labels\.endpoint_id="([^"]+)" '
    r'AND resource\.labels\.location="([^"]+)" AND timestamp>="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"'
)
ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9-]")
LABEL_KEY, LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,63}"), re.compile(r"[a-z0-9_-]{0,63}")


def doubled(artifact_uri: str, instances: list[Any]) -> list[Any]:
    """The predictions of a model that doubles its one input `x`."""
    return [2 * instance["x"] for instance in instances]


class FakeVertex(GoogleService):
    """One region of one project. `answer` stands in for the container of a model."""

    service, version = "aiplatform", "v1"
    prefix = "aiplatform.projects.locations."

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, dict[str, dict[str, Any]]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.answer: Callable[[str, list[Any]], list[Any]] = doubled
        self.out_of_stock: set[str] = set()  # machine or accelerator types: the operation fails
        self.over_quota: set[str] = set()  # the request fails at once
        self.unready = ""  # what the log of a container that never becomes ready ends with
        self.random = random.Random(1)

    def normal(self, method: Any, body: Any) -> Any:
        kind = getattr(
            aiplatform_v1, method.get("request", {}).get("$ref", "").removeprefix("GoogleCloudAiplatformV1"), None
        )
        if kind is None or body is None:
            return body
        try:
            return MessageToDict(ParseDict(body, kind.pb(kind())))
        except ParseError as error:
            raise Refused(400, f"Invalid JSON payload received. {error}") from error

    def _handle(self, request: Request) -> dict[str, Any]:
        """Answer a request; to Cloud Logging too, which has what a container printed."""
        if request.path != "/v2/entries:list":
            return super()._handle(request)
        problems = load("logging", "v2").problems("logging.entries.list", {}, request.json())
        need(not problems, f"Invalid request: {problems}")
        asked = CONTAINER_LOG.fullmatch(request.json()["filter"])
        need(asked and request.json()["orderBy"] == "timestamp desc", "The emulator knows no such filter.")
        assert asked is not None
        need(any(n.endswith(f"/{asked[2]}/endpoints/{asked[1]}") for n in self.endpoints), "No such endpoint.", 404)
        return {"entries": [{"jsonPayload": {"message": line}} for line in reversed(self.unready.splitlines())]}

    def running(self, endpoint_id: str) -> dict[str, int]:
        """The traffic of an endpoint by version, of all that runs there."""
        (endpoint,) = (e for n, e in self.endpoints.items() if n.endswith(f"/{endpoint_id}"))
        split = endpoint.get("trafficSplit", {})
        return {d["modelVersionId"]: split.get(d["id"], 0) for d in endpoint["deployedModels"]}

    # Models

    def models_upload(self, body: dict[str, Any], parent: str) -> dict[str, Any]:
        model, base = dict(body["model"]), body.get("parentModel", "").split("@")[0]
        self._check_labels(model.get("labels", {}))
        need(model.get("artifactUri", "gs://").startswith("gs://"), "artifact_uri must be a Cloud Storage URI.")
        need(model.get("containerSpec", {}).get("imageUri"), "container_spec.image_uri is required.")
        for alias in model.get("versionAliases", []):
            need(ALIAS.fullmatch(alias), f"Invalid version alias: {alias}")
        if base:
            need("modelId" not in body, "model_id must not be set with parent_model.")
            need(base in self.models, f"{base} does not exist.", 404)
        else:
            model_id = body.get("modelId") or str(next(self.numbers))
            need(re.fullmatch(r"[a-z_-][a-z0-9_-]{0,62}|\d+", model_id), f"Invalid model_id {model_id}")
            base = f"{parent}/models/{model_id}"
            in_flight = any(o.facts.get("creates") == base and not o.done for o in self.operations.values())
            need(base not in self.models and not in_flight, f"{base} already exists.", 409)

        def finish() -> dict[str, Any]:
            versions = self.models.setdefault(base, {})
            number = str(max(map(int, versions), default=0) + 1)
            aliases = model.get("versionAliases", []) + ([] if versions else ["default"])
            versions[number] = {
                **model,
                "name": base,
                "versionId": number,
                "versionAliases": aliases,
                "createTime": now(),
                "versionCreateTime": now(),
                "updateTime": now(),
            }
            return {
                "@type": "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelResponse",
                "model": base,
                "modelVersionId": number,
            }

        return self._run(base, finish, "UploadModelOperationMetadata", creates=base)

    def models_list(self, parent: str, filter: str = "", **_: str) -> dict[str, Any]:
        newest = {name: versions[max(versions, key=int)] for name, versions in self.models.items()}
        return {"models": self._named(newest, parent, filter)}

    def models_get(self, name: str) -> dict[str, Any]:
        return self._version(name)

    def models_listVersions(self, name: str, **_: str) -> dict[str, Any]:
        need(name in self.models, f"{name} does not exist.", 404)
        return {"models": list(self.models[name].values())}

    def models_mergeVersionAliases(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        model = self._version(name)
        for alias in body["versionAliases"]:
            plain = alias.removeprefix("-")
            need(ALIAS.fullmatch(plain), f"Invalid version alias: {alias}")
            need(alias != "-default", "The default alias cannot be removed.")
            for other in self.models[model["name"]].values():
                if alias == plain or other is model:
                    other["versionAliases"] = [a for a in other["versionAliases"] if a != plain]
            if alias == plain:
                model["versionAliases"] = [*model["versionAliases"], alias]
        return model

    def models_deleteVersion(self, name: str) -> dict[str, Any]:
        model = self._version(name)
        need("@" in name, "A version is required.")
        need(not self._deployments(model["name"], model["versionId"]), "The model version is deployed.")
        need(len(self.models[model["name"]]) > 1, "The only version cannot be deleted; delete the model.")
        need("default" not in model["versionAliases"], "The default version cannot be deleted.")
        del self.models[model["name"]][model["versionId"]]
        return self._run(model["name"], _empty, "DeleteOperationMetadata")

    def models_delete(self, name: str) -> dict[str, Any]:
        need(name in self.models, f"{name} does not exist.", 404)
        need(not self._deployments(name), "The model is deployed to an endpoint.")
        del self.models[name]
        return self._run(name, _empty, "DeleteOperationMetadata")

    # Endpoints

    def endpoints_create(self, body: dict[str, Any], parent: str, endpointId: str = "") -> dict[str, Any]:
        self._check_labels(body.get("labels", {}))
        need(1 <= len(body.get("displayName", "")) <= 128, "display_name has 1 to 128 characters.")
        need("deployedModels" not in body and "trafficSplit" not in body, "An endpoint is created empty.")
        form = r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9]\d{0,8}"
        need(not endpointId or re.fullmatch(form, endpointId), f"Invalid endpoint_id {endpointId}")
        name = f"{parent}/endpoints/{endpointId or next(self.numbers)}"
        need(name not in self.endpoints, f"{name} already exists.", 409)
        self.endpoints[name] = {
            **body,
            "name": name,
            "deployedModels": [],
            "trafficSplit": {},
            "etag": str(next(self.numbers)),
            "createTime": now(),
        }
        answer = {"@type": "type.googleapis.com/google.cloud.aiplatform.v1.Endpoint", "name": name}
        return self._run(name, lambda: answer, "CreateEndpointOperationMetadata")

    def endpoints_get(self, name: str) -> dict[str, Any]:
        return self._endpoint(name)

    def endpoints_list(self, parent: str, filter: str = "", **_: str) -> dict[str, Any]:
        return {"endpoints": self._named(self.endpoints, parent, filter)}

    def endpoints_patch(self, body: dict[str, Any], name: str, updateMask: str) -> dict[str, Any]:
        endpoint = self._endpoint(name)
        if "etag" in body:
            need(body["etag"] == endpoint["etag"], "The etag is not the current one.", 409)
        for field in updateMask.split(","):
            key = re.sub(r"_(\w)", lambda found: found[1].upper(), field)
            need(key in ("displayName", "labels", "trafficSplit"), f"Unsupported field in update_mask: {field}")
            value = body.get(key, {})
            if key == "labels":
                self._check_labels(value)
            if key == "trafficSplit":
                need("network" not in endpoint, "Traffic split is not supported for private endpoints.")
                self._check_split(value, {d["id"] for d in endpoint["deployedModels"]})
            endpoint[key] = value
        self._changed(endpoint)
        return endpoint

    def endpoints_delete(self, name: str) -> dict[str, Any]:
        need(not self._endpoint(name)["deployedModels"], "Endpoint has deployed or being-deployed models.")
        pending = [o for n, o in self.operations.items() if n.startswith(name + "/") and not o.done]
        need(not pending, "Endpoint has deployed or being-deployed models.")
        del self.endpoints[name]
        return self._run(name, _empty, "DeleteOperationMetadata")

    def endpoints_deployModel(self, body: dict[str, Any], endpoint: str) -> dict[str, Any]:
        place, deployed = self._endpoint(endpoint), dict(body["deployedModel"])
        model = self._version(deployed["model"])
        resources = deployed.get("dedicatedResources")
        need(resources, "dedicated_resources is required for this model.")
        machine = resources["machineSpec"]
        need(resources.get("minReplicaCount", 0) >= 1, "min_replica_count must be at least 1.")
        need(machine.get("machineType"), "machine_type is required.")
        has_type = "acceleratorType" in machine
        need(has_type == bool(machine.get("acceleratorCount")), "accelerator_type and accelerator_count go together.")
        parts = {machine["machineType"], machine.get("acceleratorType", "")}
        if lacking := parts & self.over_quota:
            what = f"aiplatform.googleapis.com/custom_model_serving_{lacking.pop().lower()}"
            raise Refused(429, f"The following quota metrics exceed quota limits: {what}")
        deployed_id = deployed.setdefault("id", str(next(self.numbers)))
        need(re.fullmatch(r"\d{1,10}", deployed_id), f"Invalid deployed model id {deployed_id}")
        taken = {d["id"] for d in place["deployedModels"]}
        taken |= {o.facts.get("deploys") for n, o in self.operations.items() if n.startswith(endpoint) and not o.done}
        need(deployed_id not in taken, f"DeployedModel {deployed_id} already exists.", 409)
        split = body.get("trafficSplit", {})
        if "network" in place:
            need("trafficSplit" not in body, "Traffic split is not supported for private endpoints.")
            need(not taken, "A maximum of one model can be deployed to a private endpoint.")
        if split:
            self._check_split(split, {"0", *(d["id"] for d in place["deployedModels"])})

        def finish() -> dict[str, Any]:
            if lacking := parts & self.out_of_stock:
                raise Failed(8, f"Machine type temporarily unavailable, out of stock: {lacking.pop()}.")
            if self.unready:
                raise Failed(
                    9,
                    "Model server never became ready. Please validate that your model file or container "
                    "configuration are valid. Model server logs can be found at https://console.cloud.google.com/logs.",
                )
            version = model["versionId"]
            entry = {**deployed, "model": model["name"], "modelVersionId": version, "createTime": now()}
            place["deployedModels"] = [*place["deployedModels"], entry]
            if split:
                place["trafficSplit"] = {deployed_id if key == "0" else key: share for key, share in split.items()}
            self._changed(place)
            kind = "type.googleapis.com/google.cloud.aiplatform.v1.DeployModelResponse"
            return {"@type": kind, "deployedModel": {"id": deployed_id}}

        return self._run(endpoint, finish, "DeployModelOperationMetadata", deploys=deployed_id)

    def endpoints_undeployModel(self, body: dict[str, Any], endpoint: str) -> dict[str, Any]:
        place, handle = self._endpoint(endpoint), body["deployedModelId"]
        need(handle in {d["id"] for d in place["deployedModels"]}, f"DeployedModel {handle} does not exist.", 404)
        split = body.get("trafficSplit", place["trafficSplit"])
        need(not split.get(handle), "The DeployedModel has traffic.")
        place["trafficSplit"] = {key: share for key, share in split.items() if key != handle}
        place["deployedModels"] = [d for d in place["deployedModels"] if d["id"] != handle]
        self._changed(place)
        kind = "type.googleapis.com/google.cloud.aiplatform.v1.UndeployModelResponse"
        return self._run(endpoint, lambda: {"@type": kind}, "UndeployModelOperationMetadata")

    def endpoints_predict(self, body: dict[str, Any], endpoint: str) -> dict[str, Any]:
        place = self._endpoint(endpoint)
        need("network" not in place, "The endpoint is private.", 404)
        split = {key: share for key, share in place["trafficSplit"].items() if share}
        need(split, f"Endpoint {endpoint} doesn't have traffic_split.")
        handle = self.random.choices(list(split), weights=list(split.values()))[0]
        (deployed,) = (d for d in place["deployedModels"] if d["id"] == handle)
        model = self.models[deployed["model"]][deployed["modelVersionId"]]
        predictions = self.answer(model["artifactUri"], body["instances"])
        return {"predictions": predictions, "deployedModelId": handle, "model": deployed["model"]}

    def _run(self, parent: str, finish: Callable[[], dict[str, Any]], kind: str, **facts: Any) -> dict[str, Any]:
        metadata = {"@type": f"type.googleapis.com/google.cloud.aiplatform.v1.{kind}"}
        return self.start(parent, finish, metadata, **facts)

    def _named(self, resources: dict[str, Any], parent: str, filter: str) -> list[dict[str, Any]]:
        asked = re.fullmatch(r'display_name="([^"]*)"', filter)
        need(asked or not filter, f"Invalid filter: {filter}")
        return [
            resource
            for name, resource in resources.items()
            if name.startswith(f"{parent}/") and (not asked or resource["displayName"] == asked[1])
        ]

    def _version(self, name: str) -> dict[str, Any]:
        base, _, wanted = name.partition("@")
        need(base in self.models, f"{base} does not exist.", 404)
        for model in self.models[base].values():
            if (wanted or "default") in (model["versionId"], *model["versionAliases"]):
                return model
        raise Refused(404, f"{name} does not exist.")

    def _endpoint(self, name: str) -> dict[str, Any]:
        need(name in self.endpoints, f"{name} does not exist.", 404)
        return self.endpoints[name]

    def _deployments(self, model: str, version: str | None = None) -> list[dict[str, Any]]:
        everywhere = [d for endpoint in self.endpoints.values() for d in endpoint["deployedModels"]]
        return [d for d in everywhere if d["model"] == model and version in (None, d["modelVersionId"])]

    def _check_split(self, split: dict[str, int], known: set[str]) -> None:
        need(set(split) <= known, f"traffic_split has unknown ids: {sorted(set(split) - known)}")
        need(not split or sum(split.values()) == 100, "The traffic_split percentages must add up to 100.")
        need(all(0 <= share <= 100 for share in split.values()), "Percentages are from 0 to 100.")

    def _check_labels(self, labels: dict[str, str]) -> None:
        need(len(labels) <= 64, "At most 64 labels.")
        for key, value in labels.items():
            need(LABEL_KEY.fullmatch(key) and LABEL_VALUE.fullmatch(value), f"Invalid label {key}={value}")
            need(not key.startswith(("vertex-ai-", "goog-")), f"Reserved label {key}")

    def _changed(self, endpoint: dict[str, Any]) -> None:
        endpoint["etag"] = str(next(self.numbers))


def _empty() -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.protobuf.Empty"}
