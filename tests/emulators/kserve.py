"""An emulated Kubernetes API server with KServe on loopback: InferenceServices, config maps, a controller, predictors.

Objects are held to the part of the CRD's schema that is listed below; anything else is an unknown field, as with the
server's strict field validation. The controller makes a new revision ready after some looks at it, and shares the
traffic as KServe does in its Knative mode.
Source of fields and rules: config/crd/full/serving.kserve.io_inferenceservices.yaml and pkg/apis/serving/v1beta1 of
github.com/kserve/kserve at aaac4e294; the Kubernetes API conventions for the rest.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from tests.emulators.http_server import Answer, LoopbackServer, Request, json_answer
from tests.emulators.vertex import doubled

QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?([KMGTPE]i|[numkMGTPE])?")
TEXTS = {"*": str}
# Fields by name: a type, a mapping of fields, or for `*` any name.
PREDICTOR: dict[str, Any] = {
    "canaryTrafficPercent": int,
    "minReplicas": int,
    "maxReplicas": int,
    "serviceAccountName": str,
    "model": {
        "modelFormat": {"name": str, "version": str},
        "storageUri": str,
        "runtimeVersion": str,
        "protocolVersion": str,
        "image": str,
        "resources": {"requests": {"*": QUANTITY}, "limits": {"*": QUANTITY}},
    },
}
METADATA = {
    "name": str,
    "namespace": str,
    "resourceVersion": str,
    "uid": str,
    "generation": int,
    "creationTimestamp": str,
    "labels": TEXTS,
    "annotations": TEXTS,
    "finalizers": list,
    "ownerReferences": list,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "InferenceService": {"apiVersion": str, "kind": str, "metadata": METADATA, "spec": {"predictor": PREDICTOR}},
    "ConfigMap": {"apiVersion": str, "kind": str, "metadata": METADATA, "data": TEXTS},
}
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


class Status(Exception):
    """An error of the API server."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


def problems(schema: Any, value: Any, at: str) -> list[str]:
    """What is wrong with an object, by the table above."""
    if isinstance(schema, re.Pattern):
        return [] if isinstance(value, str) and schema.fullmatch(value) else [f"{at}: not a quantity"]
    if isinstance(schema, type):
        is_fine = isinstance(value, schema) and not (schema is int and isinstance(value, bool))
        return [] if is_fine else [f"{at}: must be of type {schema.__name__}"]
    if not isinstance(value, dict):
        return [f"{at}: must be an object"]
    found = []
    for name, item in value.items():
        known = schema.get(name, schema.get("*"))
        found += [f'unknown field "{at}.{name}"'] if known is None else problems(known, item, f"{at}.{name}")
    return found


class FakeKserve(LoopbackServer):
    """One namespace `default`. `answer` stands in for the servers of the revisions."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.lock = threading.RLock()
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.revisions: dict[str, list[dict[str, Any]]] = {}  # by InferenceService, oldest first
        self.pending_polls = 1
        self.answer: Callable[[str, list[Any]], list[Any]] = doubled
        self.unready = ""  # what the log of a container that never becomes ready ends with
        self.unschedulable = ""  # why no node takes the pod
        self.log: list[str] = []
        self.numbers = itertools.count(1000)
        self.random = random.Random(1)

    def counted(self, call: str) -> int:
        """How often something was done, like `create InferenceService`."""
        return sum(1 for logged in self.log if logged == call)

    def running(self, name: str) -> dict[str, int]:
        """The traffic by `servegraph.dev/version`."""
        found = self.objects.get(("InferenceService", name))
        if found is None:
            return {}
        shares: dict[str, int] = {}
        for entry in self._traffic(found):
            revision = next(r for r in self.revisions[name] if r["name"] == entry["revisionName"])
            shares[revision["version"]] = shares.get(revision["version"], 0) + entry["percent"]
        return shares

    def _respond(self, request: Request) -> Answer:
        try:
            with self.lock:
                return self._handle(request)
        except Status as status:
            body = {"kind": "Status", "status": "Failure", "message": status.message, "reason": status.reason}
            return json_answer({**body, "code": status.code}, status.code)

    def _handle(self, request: Request) -> Answer:
        if found := re.fullmatch(r"/revision/([^/]+)/v1/models/([^/]+):predict", request.path):
            return self._predict(found[1], found[2], request.json())
        isvc = r"/apis/serving\.kserve\.io/v1beta1/namespaces/default/inferenceservices(?:/([^/]+))?"
        configmap = r"/api/v1/namespaces/default/configmaps(?:/([^/]+))?"
        for kind, pattern in (("InferenceService", isvc), ("ConfigMap", configmap)):
            if found := re.fullmatch(pattern, request.path):
                return json_answer(self._object(request, kind, found[1]))
        raise Status(404, "NotFound", f"the server could not find the requested resource {request.path}")

    def _object(self, request: Request, kind: str, name: str | None) -> dict[str, Any]:
        is_dry = request.query.get("dryRun") == "All"
        verb = {"GET": "get", "POST": "create", "PUT": "replace", "DELETE": "delete"}.get(request.method, "?")
        if not is_dry:
            self.log.append(f"{verb} {kind}")
        if request.method == "GET":
            return self._get(kind, str(name))
        if request.method == "DELETE":
            self._get(kind, str(name))
            del self.objects[kind, str(name)]
            self.revisions.pop(str(name), None) if kind == "InferenceService" else None
            return {"kind": "Status", "status": "Success"}
        body = request.json()
        if request.query.get("fieldValidation") != "Strict":
            raise Status(400, "BadRequest", "The emulator wants fieldValidation=Strict.")
        body.pop("status", None)
        if wrong := problems(SCHEMAS[kind], body, kind):
            raise Status(400, "BadRequest", f"strict decoding error: {'; '.join(wrong)}")
        return self._write(request.method == "POST", kind, name or body["metadata"]["name"], body, is_dry)

    def _write(self, is_new: bool, kind: str, name: str, body: dict[str, Any], is_dry: bool) -> dict[str, Any]:
        before = self.objects.get((kind, name))
        self._check(kind, name, body, before, is_new)
        stored = copy.deepcopy(body)
        old = before["metadata"] if before else {"uid": str(next(self.numbers)), "generation": 0}
        metadata = {**stored["metadata"], "namespace": "default", "uid": old["uid"]}
        metadata["resourceVersion"] = str(next(self.numbers))
        changed = before is None or before.get("spec") != stored.get("spec")
        metadata["generation"] = old["generation"] + changed
        stored["metadata"] = metadata
        if kind == "InferenceService":
            stored["status"] = copy.deepcopy(before["status"]) if before else {}
            metadata["finalizers"] = ["inferenceservice.finalizers"]
        if is_dry:
            return stored
        self.objects[kind, name] = stored
        if kind == "InferenceService":
            self._reconcile(name, stored)
        return stored

    def _check(self, kind: str, name: str, body: Mapping[str, Any], before: Any, is_new: bool) -> None:
        if is_new and before is not None:
            raise Status(409, "AlreadyExists", f'{kind} "{name}" already exists')
        if not is_new:
            if before is None:
                raise Status(404, "NotFound", f'{kind} "{name}" not found')
            if body["metadata"].get("resourceVersion") != before["metadata"]["resourceVersion"]:
                raise Status(409, "Conflict", f'Operation cannot be fulfilled on {kind} "{name}": it has been modified')
            if before["metadata"].get("finalizers", []) != body["metadata"].get("finalizers", []):
                raise Status(422, "Invalid", "The emulator does not let finalizers be taken away.")
        if not DNS_LABEL.fullmatch(name):
            raise Status(422, "Invalid", f"metadata.name: Invalid value {name!r}")
        if kind == "InferenceService":
            predictor = body["spec"]["predictor"]
            if not predictor["model"]["modelFormat"].get("name"):
                raise Status(422, "Invalid", "spec.predictor.model.modelFormat.name: Required value")
            if not 0 <= predictor.get("canaryTrafficPercent", 0) <= 100:
                raise Status(422, "Invalid", "canaryTrafficPercent must be from 0 to 100")

    def _get(self, kind: str, name: str) -> dict[str, Any]:
        found = self.objects.get((kind, name))
        if found is None:
            raise Status(404, "NotFound", f'{kind} "{name}" not found')
        if kind == "InferenceService":
            self._progress(name, found)
        return found

    def _template(self, found: Mapping[str, Any]) -> str:
        """What a revision is made from: all but the share of the traffic. Annotations are copied to the pods."""
        predictor = {k: v for k, v in found["spec"]["predictor"].items() if k != "canaryTrafficPercent"}
        return json.dumps([predictor, found["metadata"].get("annotations", {})], sort_keys=True)

    def _reconcile(self, name: str, found: dict[str, Any]) -> None:
        revisions = self.revisions.setdefault(name, [])
        template = self._template(found)
        if not revisions or revisions[-1]["template"] != template:
            rolled_out = next((r["name"] for r in reversed(revisions) if r["rolled_out"]), None)
            version = found["metadata"]["annotations"]["servegraph.dev/version"]
            uri = found["spec"]["predictor"]["model"]["storageUri"]
            new = {"name": f"{name}-{len(revisions) + 1:05d}", "template": template, "version": version, "uri": uri}
            revisions.append(
                {**new, "polls": self.pending_polls, "ready": False, "rolled_out": False, "before": rolled_out}
            )
        self._show(name, found)

    def _progress(self, name: str, found: dict[str, Any]) -> None:
        newest = self.revisions[name][-1]
        if not newest["ready"] and not self.unready and not self.unschedulable:
            newest["ready"] = newest["polls"] <= 0
            newest["polls"] -= 1
        if newest["ready"] and found["spec"]["predictor"].get("canaryTrafficPercent", 100) == 100:
            newest["rolled_out"] = True
        self._show(name, found)

    def _traffic(self, found: Mapping[str, Any]) -> list[dict[str, Any]]:
        name = found["metadata"]["name"]
        newest = self.revisions[name][-1]
        percent = found["spec"]["predictor"].get("canaryTrafficPercent", 100)
        ready = next((r for r in reversed(self.revisions[name]) if r["ready"]), None)
        if ready is None:
            return []
        if newest is not ready:
            before = newest["before"] or ready["name"]
            return [{"revisionName": before, "latestRevision": False, "percent": 100}]
        url = f"{self.url}/revision/{newest['name']}"
        if newest["before"] is None or percent == 100:
            return [{"revisionName": newest["name"], "latestRevision": True, "percent": 100, "url": url}]
        return [
            {"revisionName": newest["name"], "latestRevision": True, "percent": percent, "tag": "latest", "url": url},
            {"revisionName": newest["before"], "latestRevision": False, "percent": 100 - percent, "tag": "prev"},
        ]

    def _show(self, name: str, found: dict[str, Any]) -> None:
        revisions = self.revisions[name]
        newest = revisions[-1]
        ready = next((r["name"] for r in reversed(revisions) if r["ready"]), None)
        status: dict[str, Any] = {
            "observedGeneration": found["metadata"]["generation"],
            "url": f"{self.url}/revision/any-{name}",
            "components": {"predictor": {"latestCreatedRevision": newest["name"], "traffic": self._traffic(found)}},
        }
        if ready:
            status["components"]["predictor"]["latestReadyRevision"] = ready
        condition = {"type": "Ready", "status": "True" if newest["ready"] else "Unknown"}
        if not newest["ready"] and self.unschedulable:
            condition["message"] = self.unschedulable
        status["conditions"] = [condition]
        if not newest["ready"] and self.unready:
            failure = {"reason": "ModelLoadFailed", "message": self.unready, "exitCode": 1}
            status["modelStatus"] = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure}
        found["status"] = status

    def _predict(self, revision: str, model: str, document: Mapping[str, Any]) -> Answer:
        if revision.startswith("any-"):
            traffic = self._traffic(self.objects["InferenceService", revision.removeprefix("any-")])
            weights = [entry["percent"] for entry in traffic]
            revision = self.random.choices([entry["revisionName"] for entry in traffic], weights)[0]
        (found,) = (r for r in self.revisions[model] if r["name"] == revision)
        instances = [{"x": value} for value in document["inputs"]["x"]]
        return json_answer({"outputs": self.answer(found["uri"], instances)})
