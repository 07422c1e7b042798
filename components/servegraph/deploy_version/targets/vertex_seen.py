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


def versions_of(
    registered: list[dict[str, Any]], endpoint: dict[str, Any] | None, model: str | None
) -> tuple[SeenVersion, ...]:
    """Return the versions of a model, newest first, and then what somebody else runs on its endpoint."""
    split = (endpoint or {}).get("trafficSplit", {})
    running: dict[str, dict[str, Any]] = {}
    foreign = []
    for deployed in (endpoint or {}).get("deployedModels", []):
        name, _, tagged = deployed.get("model", "").partition("@")
        version = deployed.get("modelVersionId") or tagged
        if model and name.split("/")[-1] == model.split("/")[-1]:
            running[version] = deployed
        else:
            resource = deployed.get("model", "")
            share = split.get(deployed["id"], 0)
            text = f"{name.split('/')[-1]}@{version}"
            foreign.append(SeenVersion(text, resource, state="ready", share=share, handle=deployed["id"]))
    newest_first = sorted(registered, key=lambda m: int(m.get("versionId", 0)), reverse=True)
    return (*(_version(m, running.get(m.get("versionId", "")), split) for m in newest_first), *foreign)


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
