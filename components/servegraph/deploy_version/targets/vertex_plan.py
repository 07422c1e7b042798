"""The requests to Vertex AI, each a value: what goes into the path, and the exact body."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from servegraph import __version__
from servegraph.deploy_version.explaining import spec_of
from servegraph.deploy_version.plan import ServiceOptions, Step
from servegraph.deploy_version.remote import STABLE, Goal, Seen, SeenVersion, Shift
from servegraph.errors import DeployRefused, InputError
from servegraph.explanations.rules import is_prebuilt
from servegraph.machines.catalog import load
from servegraph.serve.options import TRUST_VARIABLE

IDENTITY, BYTES = "servegraph-identity", "servegraph-bytes"
PREVIOUS, ROLLED_BACK = "servegraph-previous", "servegraph-rolled-back-from"
OURS = "servegraph"  # on endpoints that we made and may remove
DEFAULT = "default"
PORT = 8501  # of our serving image and of TF Serving's
# Without a directory our server takes the model at AIP_STORAGE_URI. The golden requests are asked by the deploy itself,
# with the tolerance that it was given: a server that does not start could not say what differs.
SERVE = ("python", "-m", "servegraph.serve")
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9-]")  # Model.versionAliases


def slug(name: str) -> str:
    """Return `name` as an id that a model and an endpoint may have; one that had to be changed gets a digest."""
    text = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if text != name or not text[:1].isalpha() or len(text) > 63:
        text = f"m-{text[:40].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return text


def probe_name(name: str) -> str:
    """Return what the endpoint of the golden requests is called; it is found by its id, so a long name may be cut."""
    return f"{name[:122]}-probe"  # Endpoint.displayName has at most 128 characters


def deployed_id(identity: str) -> str:
    """Return the id that a version has on every endpoint: the service itself then refuses a second deployment."""
    return str(10**9 + int(identity[:12], 16) % (9 * 10**9))


def create_endpoint(parent: str, name: str, endpoint_id: str, options: ServiceOptions) -> Step:
    """Return the step that makes an endpoint."""
    body: dict[str, Any] = {"displayName": name, "labels": {OURS: "made", **dict(options.labels)}}
    if options.encryption_key:
        body["encryptionSpec"] = {"kmsKeyName": options.encryption_key}
    if options.network:
        body["network"] = options.network
    params = {"parent": parent, "endpointId": endpoint_id}
    return Step("create endpoint", f"{parent}/endpoints/{endpoint_id}", body, "endpoints.create", params)


def upload_model(parent: str, goal: Goal, seen: Seen, image: str) -> Step:
    """Return the step that makes the version in the registry: the first of a model, or one more."""
    options, name = goal.request.service, goal.request.name
    container: dict[str, Any] = {"imageUri": image}
    if not is_prebuilt(image):  # the prebuilt ones know their routes
        container |= {
            "ports": [{"containerPort": PORT}],
            "predictRoute": f"/v1/models/{name}:predict",
            "healthRoute": f"/v1/models/{name}",
            "env": [{"name": "MODEL_NAME", "value": name}],
        }
    if goal.model.routine is not None:  # that its code may run has been said
        container.setdefault("env", []).append({"name": TRUST_VARIABLE, "value": "1"})
    if options.image is None:
        container |= {"command": list(SERVE), "args": ["--no-probe"]}
    model: dict[str, Any] = {
        "displayName": name,
        "artifactUri": goal.artifact_uri,
        "containerSpec": container,
        "labels": {**dict(options.labels), IDENTITY: goal.identity, BYTES: str(goal.model.size_bytes)},
        "versionDescription": f"{goal.model.digest} by servegraph {__version__}",
    }
    explanation = spec_of(options, goal.model, image)
    if explanation is not None:
        model["explanationSpec"] = explanation
    if options.encryption_key:
        model["encryptionSpec"] = {"kmsKeyName": options.encryption_key}
    known = seen.own.get("model")
    body = {"model": model, **({"parentModel": known} if known else {"modelId": slug(name)})}
    return Step("register", f"version of {known or slug(name)}", body, "models.upload", {"parent": parent})


def deploy_model(endpoint: str, goal: Goal, model: str, split: Mapping[str, int], alone: bool = False) -> Step:
    """Return the step that runs `model` (with its version) on an endpoint: with no traffic, or `alone` with all."""
    options, config = goal.request.service, goal.config
    machine: dict[str, Any] = {"machineType": config.machine_type or "n1-standard-2"}
    if config.accelerator_type:
        # The service knows one name for each; people use several.
        accelerator = load().accelerator(config.accelerator_type).name
        machine |= {"acceleratorType": accelerator, "acceleratorCount": config.accelerator_count}
    if options.reservation:
        machine["reservationAffinity"] = {
            "reservationAffinityType": "SPECIFIC_RESERVATION",
            "key": "compute.googleapis.com/reservation-name",
            "values": [options.reservation],
        }
    replicas = 1 if alone else options.min_replicas
    resources: dict[str, Any] = {"machineSpec": machine, "minReplicaCount": replicas}
    resources["maxReplicaCount"] = 1 if alone else max(options.max_replicas or 0, replicas)
    if options.spot:
        resources["spot"] = True
    deployed: dict[str, Any] = {
        "id": deployed_id(goal.identity),
        "model": model,
        "displayName": goal.request.name,
        "dedicatedResources": resources,
    }
    if options.service_account:
        deployed["serviceAccount"] = options.service_account
    body: dict[str, Any] = {"deployedModel": deployed}
    if alone:
        body["trafficSplit"] = {"0": 100}
    elif any(split.values()):
        body["trafficSplit"] = {**split, "0": 0}
    gpus = f" with {config.accelerator_count} x {config.accelerator_type}" if config.accelerator_type else ""
    what = f"{model.split('/')[-1]} on {endpoint.split('/')[-1]}, {machine['machineType']}{gpus}"
    share = "for the golden requests only" if alone else "0 % of the traffic"
    return Step("deploy", f"{what}, {share}", body, "endpoints.deployModel", {"endpoint": endpoint})


def undeploy_model(endpoint: str, handle: str, version: str) -> Step:
    """Return the step that stops what runs on an endpoint as `handle`."""
    body = {"deployedModelId": handle}
    detail = f"version {version} from {endpoint.split('/')[-1]}"
    return Step("undeploy", detail, body, "endpoints.undeployModel", {"endpoint": endpoint})


def patch_traffic(endpoint: Mapping[str, Any], seen: Seen, shift: Shift) -> Step:
    """Return the step that shares the traffic out and remembers the way back, in one request."""
    handles = {v.version: v.handle or deployed_id(v.identity) for v in seen.versions if v.state == "ready"}
    split = {handles[version]: share for version, share in shift.shares.items() if version in handles}
    labels = {k: v for k, v in endpoint.get("labels", {}).items() if k not in (PREVIOUS, ROLLED_BACK)}
    remembered = {PREVIOUS: shift.previous, ROLLED_BACK: shift.rolled_back_from}
    for key, version in remembered.items():
        if version and (name := version if _is_label(version) else handles.get(version)):
            labels[key] = name
    body: dict[str, Any] = {"trafficSplit": split if any(split.values()) else {}, "labels": labels}
    if endpoint.get("etag"):
        body["etag"] = endpoint["etag"]
    text = ", ".join(f"version {version}: {share} %" for version, share in shift.shares.items()) or "none"
    params = {"name": endpoint["name"], "updateMask": "trafficSplit,labels"}
    return Step("shift", text, body, "endpoints.patch", params)


def patch_split(endpoint: str, split: Mapping[str, int], action: str, what: str) -> Step:
    """Return the step that shares out the traffic of an endpoint that remembers nothing."""
    params = {"name": endpoint, "updateMask": "trafficSplit"}
    return Step(action, f"{endpoint.split('/')[-1]} {what}", {"trafficSplit": dict(split)}, "endpoints.patch", params)


def merge_aliases(version: SeenVersion, model: str, aliases: Iterable[str]) -> Step:
    """Return the step that lets aliases point to a version; the service takes them from others."""
    names = list(aliases)
    body = {"versionAliases": names}
    params = {"name": f"{model}@{version.version}"}
    return Step("label", f"version {version.version}: {', '.join(names)}", body, "models.mergeVersionAliases", params)


def remove_version(seen: Seen, version: SeenVersion) -> tuple[Step, ...]:
    """Return the steps that take a version from the registry; the last one takes the model with it."""
    model = seen.own["model"]
    others = [other for other in seen.own["registered"] if other.version != version.version]
    if not others:
        return (_remove_model(model),)
    moved = (merge_aliases(others[0], model, [DEFAULT]),) if DEFAULT in seen.own["aliases"][version.version] else ()
    name = f"{model}@{version.version}"
    return (*moved, Step("remove", f"version {name}", None, "models.deleteVersion", {"name": name}))


def remove_ours(seen: Seen) -> tuple[Step, ...]:
    """Return the steps that take our versions from the registry: with the model, where no version is foreign."""
    ours = [version for version in seen.own["registered"] if not version.is_foreign]
    if ours and len(ours) == len(seen.own["registered"]):
        return (_remove_model(seen.own["model"]),)
    return tuple(step for version in reversed(ours) for step in remove_version(seen, version))


def is_ours(endpoint: Mapping[str, Any] | None) -> bool:
    """Whether an endpoint is there that we made."""
    return endpoint is not None and OURS in endpoint.get("labels", {})


def remove_endpoint(endpoint: str) -> Step:
    """Return the step that removes an endpoint on which nothing runs."""
    return Step("remove", f"endpoint {endpoint}", None, "endpoints.delete", {"name": endpoint})


def is_private(endpoint: Mapping[str, Any] | None) -> bool:
    """Whether an endpoint is in a private network: it then runs one version, which has all traffic without a split.

    Source: `PrivateEndpoint` of google-cloud-aiplatform.
    """
    return bool((endpoint or {}).get("network"))


def check_endpoint(endpoint: Mapping[str, Any], options: ServiceOptions) -> None:
    """Refuse an endpoint that was not made as `options` ask: its network and its key stay what they are.

    Raises:
        DeployRefused: it was not (code `ENDPOINT_DIFFERS`).
    """
    network, key = endpoint.get("network"), endpoint.get("encryptionSpec", {}).get("kmsKeyName")
    if (network or None) != options.network:
        has, asked = (f"in {value}" if value else "public" for value in (network, options.network))
        fix = f"Give --network {network}, or another --name." if network else "Give another --name."
        raise _differs(endpoint, f"is {has}, and the version is to be {asked}", fix)
    if options.encryption_key not in (None, key):
        has = f"with {key}" if key else "by Google's own keys"
        raise _differs(endpoint, f"is encrypted {has}, not with {options.encryption_key}", "Give another --name.")


def _differs(endpoint: Mapping[str, Any], what: str, fix: str) -> DeployRefused:
    return DeployRefused(f"The endpoint {endpoint['name']} {what}.", code="ENDPOINT_DIFFERS", fix=fix)


def check_aliases(labels: tuple[str, ...]) -> None:
    """Refuse labels that cannot be aliases, and the registry's own.

    Raises:
        InputError: one cannot (code `BAD_LABEL`).
    """
    if DEFAULT in labels:
        raise InputError(
            f"The alias {DEFAULT!r} goes with {STABLE!r}, to the version that gets all traffic.",
            code="BAD_LABEL",
            fix="Leave it out, or use another label.",
        )
    for label in labels:
        if not _ALIAS.fullmatch(label):
            raise InputError(
                f"{label!r} cannot be an alias of a model version.",
                code="BAD_LABEL",
                fix="Use letters, digits and '-', first a lowercase letter, at least two.",
            )


def _remove_model(model: str) -> Step:
    return Step("remove", f"model {model}", None, "models.delete", {"name": model})


def _is_label(value: str) -> bool:
    return re.fullmatch(r"[a-z0-9_-]{0,63}", value) is not None
