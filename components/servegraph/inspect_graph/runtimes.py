"""Which ready-made servers can load a model, by TensorFlow version: what is known, and what is not.

TensorFlow promises that a newer version loads what an older one wrote, not the reverse; below that, the operations
that a version lacks are known from `savedmodel/ops.tsv`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from functools import cache
from typing import Literal, NamedTuple

from servegraph.savedmodel.graph import SavedModelGraph
from servegraph.savedmodel.ops import known_ops

Version = tuple[int, int]
Verdict = Literal["loads", "lacks_operations", "not_promised", "unknown"]

# What each verdict means, for people.
VERDICTS: dict[Verdict, str] = {
    "loads": "the model was written by this version or an older one",
    "lacks_operations": "the model needs operations that this version lacks",
    "not_promised": "it has all operations, but the model was written by a newer version",
    "unknown": "the model does not say which version wrote it, or has operations that were not looked at",
}


class Runtime(NamedTuple):
    """A server: on which platform, its TensorFlow, until when it can be deployed, where that is written."""

    platform: str
    name: str
    tf_version: str
    available_until: date | None
    source: str


_AI_PLATFORM = "https://cloud.google.com/ai-platform/prediction/docs/ai-explanations/using-feature-attributions"
_VERTEX = (
    "https://docs.cloud.google.com/gemini-enterprise-agent-platform/machine-learning/predictions/pre-built-containers"
)
_KSERVE = "https://github.com/kserve/kserve/blob/master/config/runtimes/kustomization.yaml"
_SERVING = "https://hub.docker.com/r/tensorflow/serving/tags"

RUNTIMES = (
    Runtime("ai-platform", "runtime 2.11, the last", "2.11", date(2025, 1, 31), _AI_PLATFORM),
    Runtime("vertex", "tf2-cpu.2-14", "2.14", date(2027, 1, 14), _VERTEX),
    Runtime("vertex", "tf2-cpu.2-15", "2.15", date(2027, 1, 14), _VERTEX),
    Runtime("kserve", "tensorflow/serving:2.6.2, its default", "2.6", None, _KSERVE),
    Runtime("tf-serving", "tensorflow/serving:2.20.0", "2.20", None, _SERVING),
    Runtime("servegraph", "servegraph's own server", "2.21", None, "images/README.md"),
)


class Compatibility(NamedTuple):
    """What one runtime makes of a model. `missing_ops` are operations that its version lacks."""

    runtime: Runtime
    verdict: Verdict
    missing_ops: tuple[str, ...]


def compatibility(
    graph: SavedModelGraph, needed_ops: Iterable[str], runtimes: Iterable[Runtime] = RUNTIMES
) -> list[Compatibility]:
    """Return what each runtime makes of a model that needs some operations to be served."""
    versions = [version_of(meta_graph.tf_version) or (0, 0) for meta_graph in graph.meta_graphs]
    return [_judge(runtime, frozenset(needed_ops), max(versions, default=(0, 0))) for runtime in runtimes]


def _judge(runtime: Runtime, ops: frozenset[str], written_by: Version) -> Compatibility:
    version = version_of(runtime.tf_version) or (0, 0)
    presence = {op: _is_in(op, version) for op in ops}
    missing = tuple(sorted(op for op, is_in in presence.items() if is_in is False))
    if missing:
        return Compatibility(runtime, "lacks_operations", missing)
    if written_by == (0, 0) or None in presence.values():
        return Compatibility(runtime, "unknown", ())
    return Compatibility(runtime, "loads" if written_by <= version else "not_promised", ())


def _is_in(op: str, version: Version) -> bool | None:
    """Tell whether a version has an operation; None where the versions that were looked at do not say."""
    row = known_ops().get(op)
    if row is None:
        return None
    since = version_of(row.since)
    if since is None or since <= version:
        return True
    absent_until = max((looked_at for looked_at in _looked_at() if looked_at < since), default=(0, 0))
    return False if version <= absent_until else None


@cache
def _looked_at() -> frozenset[Version]:
    versions = {version_of(row.since) for row in known_ops().values()}
    return frozenset(version for version in versions if version is not None)


def version_of(text: str | None) -> Version | None:
    """Return major and minor of `2.21.0-rc1`, or None where the text is no version."""
    match = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(match[1]), int(match[2])) if match else None
