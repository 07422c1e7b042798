"""What is written to Kubernetes: the InferenceService of a version, and the config map that remembers the versions.

The memory is not kept in annotations of the InferenceService, because KServe copies those to the pods: every change of
them would start a new revision.
Source: github.com/kserve/kserve, pkg/apis/serving/v1beta1 and config/crd.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from servegraph.deploy_version.plan import Step
from servegraph.deploy_version.remote import Goal
from servegraph.errors import InputError, in_short
from servegraph.machines.choose import KUBERNETES_GPU

ANNOTATION = "servegraph.dev"
TAG_ROUTING = "serving.kserve.io/enable-tag-routing"  # gives the newest revision an address of its own
MANAGED = {"app.kubernetes.io/managed-by": "servegraph"}
_ENTRY = {"identity", "digest", "uri", "created", "size_bytes", "config", "predictor", "labels"}  # of a version
_KEPT = ("name", "namespace", "labels", "annotations", "resourceVersion", "finalizers", "ownerReferences")


@dataclass(frozen=True)
class Memory:
    """What the config map says. `base` is the version that shares the traffic with the newest revision."""

    versions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    previous: str | None = None
    rolled_back_from: str | None = None
    base: str | None = None
    last: int = 0


def object_name(name: str) -> str:
    """Return the name as Kubernetes takes it: a DNS label; one that had to be changed gets a digest."""
    text = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if text == name and text[:1].isalpha() and len(text) <= 53:
        return text
    return f"m-{text[:40].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def predictor(goal: Goal) -> dict[str, Any]:
    """Return the predictor of a version, as the InferenceService has it."""
    options, config = goal.request.service, goal.config
    model: dict[str, Any] = {"modelFormat": {"name": "tensorflow"}, "storageUri": goal.artifact_uri}
    if options.runtime_version:
        model["runtimeVersion"] = options.runtime_version
    if options.image:
        model["image"] = options.image
    asked = dict(options.resources)
    gpus = {KUBERNETES_GPU: str(config.accelerator_count)} if config.accelerator_type else {}
    if asked or gpus:
        model["resources"] = {"requests": asked, "limits": {**asked, **gpus}}
    found: dict[str, Any] = {"model": model, "minReplicas": options.min_replicas}
    if options.max_replicas:
        found["maxReplicas"] = options.max_replicas
    if options.service_account:
        found["serviceAccountName"] = options.service_account
    return found


def entry(goal: Goal, created: str) -> dict[str, Any]:
    """Return what is remembered of a version: enough to bring it back."""
    return {
        "identity": goal.identity,
        "digest": goal.model.digest,
        "uri": goal.artifact_uri,
        "created": created,
        "size_bytes": goal.model.size_bytes,
        "config": asdict(goal.config),
        "predictor": predictor(goal),
        "labels": dict(goal.request.service.labels),
    }


def apply(
    name: str, found: Mapping[str, Any] | None, version: str, known: Mapping[str, Any], canary: int | None, why: str
) -> Step:
    """Return the step that makes `version` the newest revision with `canary` percent (None: all)."""
    spec = {**known["predictor"], **({} if canary is None else {"canaryTrafficPercent": canary})}
    identity = {f"{ANNOTATION}/version": version, f"{ANNOTATION}/identity": known["identity"], TAG_ROUTING: "true"}
    metadata: dict[str, Any] = {"name": object_name(name)} if found is None else _kept(found)
    metadata["labels"] = {**metadata.get("labels", {}), **known["labels"], **MANAGED}
    metadata["annotations"] = {**metadata.get("annotations", {}), **identity}
    body = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": spec},
    }
    share = "all" if canary is None else f"{canary} %"
    detail = f"version {version} as the newest revision, {share} of the traffic"
    return Step(why, detail, body, "create" if found is None else "replace", _params("InferenceService", metadata))


def set_canary(found: Any, percent: int | None, detail: str) -> Step:
    """Return the step that gives the newest revision another share, which starts no new one."""
    spec = {key: value for key, value in found["spec"]["predictor"].items() if key != "canaryTrafficPercent"}
    spec |= {} if percent is None else {"canaryTrafficPercent": percent}
    body = {
        "apiVersion": found["apiVersion"],
        "kind": found["kind"],
        "metadata": _kept(found),
        "spec": {**found["spec"], "predictor": spec},
    }
    return Step("shift", detail, body, "replace", _params("InferenceService", body["metadata"]))


def remember(name: str, found: Mapping[str, Any] | None, before: Memory, after: Memory, why: str) -> tuple[Step, ...]:
    """Return the step that writes the memory; none where it says so already."""
    if before == after and found is not None:
        return ()
    metadata = {"name": f"{object_name(name)}-servegraph", "labels": MANAGED} if found is None else _kept(found)
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"versions.json": json.dumps(asdict(after), indent=1, sort_keys=True)},
    }
    verb = "create" if found is None else "replace"
    return (Step("remember", why, body, verb, _params("ConfigMap", metadata)),)


def recall(found: Mapping[str, Any] | None) -> Memory:
    """Return what a config map says; nothing where there is none.

    Raises:
        InputError: it is not as we write it (code `BAD_STATE`): what runs would be taken for nothing.
    """
    if found is None:
        return Memory()
    try:
        memory = Memory(**json.loads(found["data"]["versions.json"]))
        for known in memory.versions.values():
            if missing := _ENTRY - known.keys():
                raise ValueError(f"a version has no {min(missing)}")
        return replace(memory, last=max([int(memory.last), *map(int, memory.versions)]))
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        name = found["metadata"]["name"]
        raise InputError(
            f"The config map {name} does not say which versions there are: {in_short(exc)}.",
            code="BAD_STATE",
            fix=f"Put its last good content back, or remove all: kubectl delete configmap {name}, and what it was of.",
        ) from exc


def told(service: Mapping[str, Any]) -> Memory:
    """Return what an InferenceService of ours says itself, for where its config map was lost: its newest version.

    Of that, its size and its machine are not in there.
    """
    metadata, spec = service["metadata"], service["spec"]["predictor"]
    number, uri = metadata["annotations"][f"{ANNOTATION}/version"], spec["model"]["storageUri"]
    known = {
        "identity": metadata["annotations"][f"{ANNOTATION}/identity"],
        "digest": uri.rsplit("/", 1)[-1].replace("-", ":", 1),
        "uri": uri,
        "created": metadata.get("creationTimestamp", "")[:10],
        "size_bytes": 0,
        "config": {},
        "predictor": {key: value for key, value in spec.items() if key != "canaryTrafficPercent"},
        "labels": {},
        "proved": spec.get("canaryTrafficPercent") != 0,
    }
    return Memory(versions={number: known}, last=int(number))


def _params(kind: str, metadata: Mapping[str, Any]) -> dict[str, str]:
    return {"kind": kind, "name": str(metadata["name"])}


def _kept(found: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that a replacement has to have, or the server would take it away."""
    return {key: found["metadata"][key] for key in _KEPT if found["metadata"].get(key)}
