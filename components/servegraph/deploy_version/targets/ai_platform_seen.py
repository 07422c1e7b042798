"""What AI Platform has of a name, in the words of `remote`: from the resources as they are listed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from servegraph.deploy_version.remote import SeenVersion, State
from servegraph.serve.state import ServingConfig

IDENTITY, BYTES = "servegraph_identity", "servegraph_bytes"
MEMORY = "servegraph:"  # what follows it in a model's description is ours
STATES: dict[str, State] = {"READY": "ready", "CREATING": "starting", "UPDATING": "starting", "FAILED": "failed"}


def model_id(name: str) -> str:
    """Return the name as one that a model may have: letters, digits and `_`, first a letter."""
    text = re.sub(r"[^A-Za-z0-9_]", "_", name)
    if text == name and text[:1].isalpha():
        return text
    return f"m_{text[:100]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def version_of(version: Mapping[str, Any], model: str, memory: Mapping[str, Any]) -> SeenVersion:
    """Return a version of the resource `model` as it is listed."""
    labels, uri = version.get("labels", {}), version.get("deploymentUri", "")
    last, name = uri.rstrip("/").split("/")[-1], version["name"].split("/")[-1]
    number = name[1:] if re.fullmatch(r"v\d+", name) else name
    accelerator = version.get("acceleratorConfig", {})
    return SeenVersion(
        version=number,
        resource=f"{model}/versions/{name}",
        identity=labels.get(IDENTITY, ""),
        digest=last.replace("-", ":", 1) if last.startswith("sha256-") else "",
        artifact_uri=uri,
        created=version.get("createTime", ""),
        size_bytes=int(labels.get(BYTES, 0)),
        config=ServingConfig(version.get("machineType"), accelerator.get("type"), int(accelerator.get("count", 0))),
        state=STATES.get(version.get("state", ""), "starting"),
        share=100 if version.get("isDefault") else 0,
        labels=tuple(sorted(label for label, of in memory.get("labels", {}).items() if of == number)),
        reason=version.get("errorMessage", ""),
    )


def order(version: Mapping[str, Any]) -> tuple[int, str]:
    """Return what versions are sorted by: their number, and those of others by their time."""
    found = re.fullmatch(r".*/v(\d+)", "/" + version["name"])
    return (int(found[1]) if found else 0, version.get("createTime", ""))


def is_ours(model: Mapping[str, Any]) -> bool:
    """Whether `model` was made here: those of others begin with words of theirs."""
    return str(model.get("description", "")).startswith(MEMORY)


def recall(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is remembered in the description of `model`."""
    _, found, text = str(model.get("description", "")).partition(MEMORY)
    try:
        memory = json.loads(text) if found else {}
        return memory if isinstance(memory, dict) else {}
    except ValueError:
        return {}  # somebody rewrote it: the way back is forgotten, nothing else
