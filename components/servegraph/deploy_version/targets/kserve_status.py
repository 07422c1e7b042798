"""What the status of an InferenceService says: how its newest revision is, who has the traffic, where it is asked.

Source: github.com/kserve/kserve, pkg/apis/serving/v1beta1/inference_service_status.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servegraph.deploy_version.remote import State
from servegraph.deploy_version.targets.kserve_objects import ANNOTATION, Memory


def current(found: Mapping[str, Any] | None) -> str | None:
    """Return the version that the InferenceService was last set to."""
    annotations = (found or {}).get("metadata", {}).get("annotations", {})
    version = annotations.get(f"{ANNOTATION}/version")
    return None if version is None else str(version)


def _predictor(found: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The status of the predictor."""
    components = (found or {}).get("status", {}).get("components", {})
    predictor: Mapping[str, Any] = components.get("predictor", {})
    return predictor


def revision(found: Mapping[str, Any]) -> str:
    """Return the newest revision, or where KServe makes none (without Knative) the name."""
    return str(_predictor(found).get("latestCreatedRevision") or found["metadata"]["name"])


def state(found: Mapping[str, Any] | None) -> tuple[State, str]:
    """Return how the newest revision is, and the words of whoever knows why it is not ready."""
    status = (found or {}).get("status", {})
    is_current = status.get("observedGeneration") == (found or {}).get("metadata", {}).get("generation")
    model = status.get("modelStatus", {})
    failure = model.get("lastFailureInfo", {})
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    words = [failure.get("reason", ""), failure.get("message", "")]
    words += [c.get("message", "") for c in conditions.values() if c["status"] != "True"]
    reason = "; ".join(word for word in words if word)
    if not is_current:
        return "starting", ""
    if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        return "failed", reason
    predictor = _predictor(found)
    is_newest = predictor.get("latestReadyRevision") == predictor.get("latestCreatedRevision")
    if conditions.get("Ready", {}).get("status") == "True" and is_newest:
        return "ready", ""
    return "starting", reason


def shares(found: Mapping[str, Any] | None, memory: Memory, its_state: State) -> dict[str, int]:
    """Return the traffic by version: as the spec shares it, once the newest revision can take it."""
    newest = current(found)
    if found is None or newest is None:
        return {}
    percent = found["spec"]["predictor"].get("canaryTrafficPercent", 100) if its_state == "ready" else 0
    base = memory.base
    if base is None or base not in memory.versions or base == newest:
        # Brought back, its older revision serves until the new one is ready.
        serves = its_state == "ready" or (base == newest and "latestReadyRevision" in _predictor(found))
        return {newest: 100} if serves else {}
    return {base: 100 - percent, newest: percent}


def address(found: Mapping[str, Any] | None) -> str | None:
    """Return the address of the newest revision alone, or of the service where it has none."""
    status = (found or {}).get("status", {})
    for entry in _predictor(found).get("traffic", []):
        if entry.get("latestRevision") and entry.get("url"):
            return str(entry["url"])
    url = status.get("url")
    return None if url is None else str(url)
