"""Sending a training job: one request, checked first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servegraph.deploy_version.targets.kserve_api import KserveApi
from servegraph.deploy_version.targets.vertex_api import VertexApi
from servegraph.errors import InputError


def send(engine: str, body: Mapping[str, Any], place: Mapping[str, str | None]) -> str:
    """Create the job and return its name. Unlike a run it is not looked for where the answer got lost.

    Raises:
        InputError: the place is not whole (code `NO_PLACE`), or the body not one that the service takes.
        DeployRefused: the service refuses it, or does not answer.
    """
    if engine == "kfp":
        cluster = KserveApi(str(place["namespace"]), place["context"], place["api_url"])
        try:
            made = cluster.create_custom("kubeflow.org", "v1", "tfjobs", body)
        finally:
            cluster.close()
        return f"{made['metadata'].get('namespace', place['namespace'])}/tfjobs/{made['metadata']['name']}"
    for what in ("project", "region"):
        if not place[what]:
            raise InputError(f"Vertex AI needs a {what}.", code="NO_PLACE", fix=f"Give --{what}.")
    api = VertexApi(str(place["region"]), place["api_url"])
    parent = f"projects/{place['project']}/locations/{place['region']}"
    return str(api.call("customJobs.create", {"parent": parent}, body)["name"])
