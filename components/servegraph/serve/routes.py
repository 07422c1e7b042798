"""Paths of the API, as values: TF Serving's, those of KServe V1 and V2's health, and what Vertex is told to ask.

TF Serving's after `http_rest_api_util.cc`, in any case of letters as there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple
from urllib.parse import unquote_to_bytes

Kind = Literal["predict", "classify", "regress", "status", "metadata", "models", "live", "ready", "metrics"]
METHODS = ("predict", "classify", "regress")
_VERBS: dict[str, Kind] = {"predict": "predict", "classify": "classify", "regress": "regress"}

_LABEL = r"[^/:]+"
_MODEL = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+)(?:/versions/(?P<version>\d{{1,18}})|/labels/(?P<label>{_LABEL}))?"
    r"(?:(?P<metadata>/metadata)|:(?P<verb>predict|classify|regress))?)?",
    re.IGNORECASE,
)
_FIXED: dict[str, Kind] = {
    "": "live",  # KServe V1
    "/healthz": "live",
    "/livez": "live",
    "/v2/health/live": "live",
    "/readyz": "ready",
    "/v2/health/ready": "ready",
    "/metrics": "metrics",
    "/monitoring/prometheus/metrics": "metrics",  # TF Serving's
}


class Route(NamedTuple):
    """What is asked, and of which model; `name` None is the only model, where there is one."""

    kind: Kind
    name: str | None = None
    version: int | None = None
    label: str | None = None

    @property
    def method(self) -> str:
        """The HTTP method that it takes."""
        return "POST" if self.kind in METHODS else "GET"


Aliases = Sequence[tuple[str, Route]]  # paths, and what is asked there


def is_label(text: str) -> bool:
    """Whether a version can be asked for by a label of that text."""
    return re.fullmatch(_LABEL, text) is not None


def route_of(target: bytes) -> Route | None:
    """Return the route of a request target, None where there is none."""
    path = path_of(target)
    fixed = _FIXED.get(path)
    if fixed is not None:
        return Route(fixed)
    found = _MODEL.fullmatch(path)
    if found is None:
        return None
    name, version, verb = found["name"], found["version"], found["verb"]
    if name is None:
        return Route("models")
    asked: Kind = _VERBS[verb.lower()] if verb else "metadata" if found["metadata"] else "status"
    return Route(asked, name, None if version is None else int(version), found["label"])


def path_of(target: bytes) -> str:
    """Return the path of a target, `/a%20b?x=1` or `http://host/a%20b`, decoded and without a slash at its end."""
    if not target.startswith(b"/"):
        _, _, rest = target.partition(b"://")
        target = b"/" + rest.partition(b"/")[2]
    path = re.split(b"[?#]", target, maxsplit=1)[0]
    return unquote_to_bytes(path).decode("utf-8", "replace").rstrip("/")
