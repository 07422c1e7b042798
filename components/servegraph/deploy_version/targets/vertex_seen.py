"""What Vertex AI has of a name, in the words of `remote`: from the resources as they are listed."""

from __future__ import annotations

from typing import Any

from servegraph.deploy_version.remote import SeenVersion
from servegraph.deploy_version.targets import vertex_plan as requests
from servegraph.errors import DeployRefused
from servegraph.serve.state import ServingConfig

CONSOLE = "https://console.cloud.google.com/vertex-ai"


def only(found: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Return the one resource that is called `name`, or None.

    Raises:
        DeployRefused: there are several, none with our id (code `AMBIGUOUS_NAME`).
    """
    if len(found) > 1:
        raise DeployRefused(
            f"There are {len(found)} resources called {name!r}: {', '.join(r['name'] for r in found)}.",
            code="AMBIGUOUS_NAME",
            fix="Rename or remove all but one, or deploy under another name.",
        )
    return next(iter(found), None)


def links_of(parent: str, endpoint: dict[str, Any] | None, model: str | None) -> dict[str, str]:
    """Return what there is to look at, by kind."""
    region = parent.split("/")[-1]
    found = {}
    if endpoint:
        found["endpoint"] = endpoint["name"]
        found["console"] = f"{CONSOLE}/online-prediction/locations/{region}/endpoints/{endpoint['name'].split('/')[-1]}"
    if model:
        found["model"] = model
    return found


def versions_of(registered: list[dict[str, Any]], endpoint: dict[str, Any] | None) -> tuple[SeenVersion, ...]:
    """Return the versions of a model, newest first, as they run on its endpoint or are only stored."""
    split, deployed = _split(endpoint or {}), (endpoint or {}).get("deployedModels", [])
    newest_first = sorted(registered, key=lambda m: int(m.get("versionId", 0)), reverse=True)
    return tuple(_version(model, _running(model, deployed), split) for model in newest_first)


def foreign_on(endpoint: dict[str, Any] | None, known: tuple[SeenVersion, ...]) -> tuple[SeenVersion, ...]:
    """Return what else than the `known` versions runs on an endpoint: each deployment under a name of its own."""
    split, handles = _split(endpoint or {}), {version.handle for version in known}
    found: dict[str, SeenVersion] = {}
    for deployed in (endpoint or {}).get("deployedModels", []):
        handle = deployed["id"]
        if handle not in handles:
            model, version = _model_of(deployed)
            name, share = f"{model}@{version}", split.get(handle, 0)
            name = f"{name}#{handle}" if name in found else name
            resource = f"{deployed.get('model', '').partition('@')[0]}@{version}"
            found[name] = SeenVersion(name, resource, state="ready", share=share, handle=handle)
    return tuple(found.values())


def named_by(remembered: str | None, versions: tuple[SeenVersion, ...]) -> str | None:
    """Return the version that the label of an endpoint means: by its name, or its handle where that is no label."""
    names = {version.handle: version.version for version in versions if version.handle}
    is_name = any(version.version == remembered for version in versions)
    return remembered if is_name else names.get(remembered or "", remembered)


def _model_of(deployed: dict[str, Any]) -> tuple[str, str]:
    """The id and the version of the model that is deployed."""
    name, _, tagged = deployed.get("model", "").partition("@")
    return name.split("/")[-1], deployed.get("modelVersionId") or tagged


def _running(model: dict[str, Any], everything: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The deployment of a version: of several ours, which has the id that we give."""
    what = model["name"].split("@")[0].split("/")[-1], model.get("versionId", "")
    found = [deployed for deployed in everything if _model_of(deployed) == what]
    identity = model.get("labels", {}).get(requests.IDENTITY)
    ours = [deployed for deployed in found if identity and deployed["id"] == requests.deployed_id(identity)]
    return next(iter(ours or found), None)


def _split(endpoint: dict[str, Any]) -> dict[str, int]:
    """Return the traffic by deployment; on a private endpoint the one that runs has all, and no split says so."""
    if requests.is_private(endpoint):
        return {deployed["id"]: 100 for deployed in endpoint.get("deployedModels", [])}
    split: dict[str, int] = endpoint.get("trafficSplit", {})
    return split


def _version(model: dict[str, Any], deployed: dict[str, Any] | None, split: dict[str, int]) -> SeenVersion:
    labels, uri = model.get("labels", {}), model.get("artifactUri", "")
    machine = (deployed or {}).get("dedicatedResources", {}).get("machineSpec", {})
    last = uri.rstrip("/").split("/")[-1]
    name = model["name"].split("@")[0]
    return SeenVersion(
        version=model["versionId"],
        resource=f"{name}@{model['versionId']}",
        identity=labels.get(requests.IDENTITY, ""),
        digest=last.replace("-", ":", 1) if last.startswith("sha256-") else "",
        artifact_uri=uri,
        created=model.get("versionCreateTime", ""),
        size_bytes=int(labels.get(requests.BYTES, 0)),
        config=ServingConfig(
            machine.get("machineType"), machine.get("acceleratorType"), machine.get("acceleratorCount", 0)
        ),
        state="ready" if deployed else "stored",
        share=split.get(deployed["id"], 0) if deployed else 0,
        handle=deployed["id"] if deployed else "",
        labels=tuple(sorted(a for a in model.get("versionAliases", []) if a != requests.DEFAULT)),
    )
