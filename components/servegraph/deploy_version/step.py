"""Between the plain values of a pipeline step and those of a deploy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from servegraph.deploy_version.choice import fallbacks as read_fallbacks
from servegraph.deploy_version.google_api import is_label
from servegraph.deploy_version.plan import DeployRequest, Outcome, ServiceOptions
from servegraph.errors import InputError
from servegraph.serve.state import ServingConfig


def make_request(
    *,
    model_uri: str,
    name: str,
    machine: tuple[str, str, int],
    fallbacks: Sequence[Mapping[str, Any]] = (),
    serving: Mapping[str, Any] | None = None,
    rollout: tuple[int, Sequence[Any], int] = (100, (), 2),
    labels: Sequence[str] = (),
    allow_signature_change: bool = False,
    trust_code: bool = False,
    run_labels: str = "",
) -> DeployRequest:
    """Return the request of a step; an empty string is absence there.

    `machine` is its type, its accelerator and how many; `rollout` the share of the traffic, the steps to it and how
    many versions stay. `run_labels` are the labels of the run, a JSON object as Vertex AI Pipelines gives it.

    Raises:
        InputError: a value cannot be used.
    """
    options = dict(serving or {})
    inherited = json.loads(run_labels) if run_labels else {}
    if inherited:
        options["labels"] = {**{k: v for k, v in inherited.items() if is_label(k, v)}, **options.get("labels", {})}
    machine_type, accelerator_type, accelerator_count = machine
    percent, steps, keep = rollout
    return DeployRequest(
        model_uri=model_uri,
        name=name,
        config=ServingConfig(machine_type or None, accelerator_type or None, accelerator_count),
        labels=tuple(labels),
        traffic_percent=percent,
        traffic_steps=_percentages(steps),
        keep_versions=keep,
        allow_signature_change=allow_signature_change,
        trust_code=trust_code,
        fallbacks=read_fallbacks(fallbacks),
        service=ServiceOptions.from_json(options),
    )


def _percentages(steps: Sequence[Any]) -> tuple[int, ...]:
    try:
        return tuple(int(step) for step in steps)
    except (TypeError, ValueError) as exc:
        what = f"The traffic steps {list(steps)} are no percentages."
        raise InputError(what, code="BAD_TRAFFIC_STEPS", fix="Give rising percentages like [10, 50].") from exc


def record(outcome: Outcome) -> str:
    """Return the outcome as the JSON text of the step's artifact."""
    return json.dumps(outcome.to_json(), indent=2)


def gcp_links(outcome: Outcome, region: str) -> str:
    """Return the resources on Vertex AI as the JSON that Vertex AI Pipelines links to, or an empty string.

    Source: gcp_resources.proto of google-cloud-pipeline-components.
    """
    if outcome.target != "vertex":
        return ""
    host = f"https://{region}-aiplatform.googleapis.com/v1"
    kinds = {"endpoint": "VertexEndpoint", "model": "VertexModel"}
    rows = [
        {"resourceType": kind, "resourceUri": f"{host}/{outcome.links[key]}"}
        for key, kind in kinds.items()
        if key in outcome.links
    ]
    return json.dumps({"resources": rows})
