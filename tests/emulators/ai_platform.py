"""An emulated AI Platform Prediction (ml v1) on loopback: models, versions, operations, predictions by version."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.emulators.google_api import Failed, GoogleService, need, now
from tests.emulators.vertex import doubled

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")


class FakeAiPlatform(GoogleService):
    """One project. `answer` stands in for the servers of the versions."""

    service, version = "ml", "v1"
    prefix = "ml.projects."

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.default: dict[str, str] = {}
        self.answer: Callable[[str, list[Any]], list[Any]] = doubled
        self.out_of_stock: set[str] = set()
        self.unready = ""

    def check(self, method: Any, params: Any, body: Any) -> list[str]:
        # The container gets a prediction's body as it is; the document has only a wrapper for it.
        return [] if method["id"] == "ml.projects.predict" else super().check(method, params, body)

    def running(self, model_id: str) -> dict[str, int]:
        """The traffic of a model by version number, of all its versions."""
        (model,) = (name for name in self.models if name.endswith(f"/{model_id}"))
        names = [name for name in self.versions if name.startswith(model + "/")]
        return {name.split("/v")[-1]: 100 * (self.default.get(model) == name) for name in names}

    def models_create(self, body: dict[str, Any], parent: str) -> dict[str, Any]:
        need(NAME.fullmatch(body["name"]), "Field: name Error: A name should start with a letter.")
        name = f"{parent}/models/{body['name']}"
        need(name not in self.models, f"Field: model.name Error: {name} already exists.", 409)
        self.models[name] = {**body, "name": name, "etag": self._etag()}
        return self.models_get(name)

    def models_get(self, name: str) -> dict[str, Any]:
        need(name in self.models, f"{name} was not found.", 404)
        default = self.versions.get(self.default.get(name, ""))
        return {**self.models[name], **({"defaultVersion": default} if default else {})}

    def models_patch(self, body: dict[str, Any], name: str, updateMask: str) -> dict[str, Any]:
        model = self.models[name] if name in self.models else self.models_get(name)
        need(set(updateMask.split(",")) <= {"description"}, f"Unsupported update mask {updateMask}")
        need(body.get("etag", model["etag"]) == model["etag"], "The etag is not the current one.", 409)
        model.update({"description": body["description"], "etag": self._etag()})
        return self._run(name, "UPDATE_MODEL", dict)

    def models_delete(self, name: str) -> dict[str, Any]:
        self.models_get(name)
        need(not any(version.startswith(name + "/") for version in self.versions), "The model has versions.")
        del self.models[name]
        return self._run(name, "DELETE_MODEL", dict)

    def models_versions_create(self, body: dict[str, Any], parent: str) -> dict[str, Any]:
        self.models_get(parent)
        need(NAME.fullmatch(body["name"]), "Field: version.name Error: A name should start with a letter.")
        name = f"{parent}/versions/{body['name']}"
        need(name not in self.versions, f"Field: version.name Error: {name} already exists.", 409)
        is_mls1 = body["machineType"].startswith("mls1")
        need(body["deploymentUri"].startswith("gs://"), "deploymentUri must be on Cloud Storage.")
        need(not (is_mls1 and "acceleratorConfig" in body), "Accelerators need an N1 machine type.")
        need(is_mls1 or body.get("autoScaling", {}).get("minNodes", 1) >= 1, "minNodes must be at least 1 on N1.")
        custom = "predictionClass" in body
        need(custom == bool(body.get("packageUris")) and not (custom and "framework" in body), "Bad custom routine.")
        need(is_mls1 or not custom, "Custom prediction routines need an MLS1 machine type.")
        self.versions[name] = {**body, "name": name, "state": "CREATING", "createTime": now(), "etag": self._etag()}

        def finish() -> dict[str, Any]:
            version = self.versions[name]
            lacking = self.out_of_stock & {body["machineType"], body.get("acceleratorConfig", {}).get("type")}
            if lacking or self.unready:
                words = f"{lacking.pop()} is out of stock." if lacking else f"Bad model detected: {self.unready}"
                version.update(state="FAILED", errorMessage=words)
                raise Failed(8 if "stock" in words else 9, words)
            version["state"] = "READY"
            self.default.setdefault(parent, name)
            return version

        return self._run(parent, "CREATE_VERSION", finish, version=name)

    def models_versions_list(self, parent: str, **_: str) -> dict[str, Any]:
        self.models_get(parent)
        found = [v for name, v in self.versions.items() if name.startswith(parent + "/")]
        return {"versions": [{**v, "isDefault": True} if v["name"] == self.default.get(parent) else v for v in found]}

    def models_versions_setDefault(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        need(name in self.versions, f"{name} was not found.", 404)
        need(self.versions[name]["state"] == "READY", "The version is not ready.")
        self.default[name.split("/versions/")[0]] = name
        return self.versions[name]

    def models_versions_delete(self, name: str) -> dict[str, Any]:
        need(name in self.versions, f"{name} was not found.", 404)
        model = name.split("/versions/")[0]
        others = [other for other in self.versions if other.startswith(model + "/") and other != name]
        need(self.default.get(model) != name or not others, "The default version cannot be deleted.")
        busy = [o for o in self.operations.values() if o.facts.get("version") == name and not o.done]
        need(not busy, "The version is being created.", 409)
        del self.versions[name]
        if self.default.get(model) == name:
            del self.default[model]
        return self._run(model, "DELETE_VERSION", dict)

    def predict(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        name = self.default.get(name, name)
        need(name in self.versions and self.versions[name]["state"] == "READY", f"{name} was not found.", 404)
        return {"predictions": self.answer(self.versions[name]["deploymentUri"], body["instances"])}

    def _run(self, model: str, kind: str, finish: Callable[[], dict[str, Any]], **facts: Any) -> dict[str, Any]:
        metadata = {"modelName": model, "operationType": kind}
        return self.start(model.split("/models/")[0], finish, metadata, **facts)

    def _etag(self) -> str:
        return f"e{next(self.numbers):03d}"[:4]
