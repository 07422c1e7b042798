"""The component: inspects a SavedModel inside a pipeline."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Model, Output

from servegraph import _image


@dsl.component(base_image=_image.SLIM, install_kfp_package=False)  # type: ignore[untyped-decorator]
def inspect_graph(
    model: Input[Model],
    report: Output[HTML],
    inspection: Output[Artifact],
    strict: bool = True,
    platform: str = "",
    model_digest: str = "",
) -> NamedTuple(  # type: ignore[valid-type]
    "Inspected", [("size_bytes", int), ("memory_bytes", int), ("tag_sets", list), ("findings", dict)]
):
    """Measure a SavedModel and find what is wrong with it, without TensorFlow.

    Args:
        model: The directory of a SavedModel.
        report: The findings, signatures and sizes as a page.
        inspection: The same as JSON.
        strict: Fail if anything is found that keeps the model from being served.
        platform: Check also that it would deploy there, e.g. `vertex`; empty for no platform.
        model_digest: Digest of the model's content, for the key of an engine's cache, which has its id alone.

    Returns:
        size_bytes: Size of the whole directory.
        memory_bytes: Memory that loading needs beyond the server's own, 0 if unknown.
        tag_sets: The tags of each MetaGraph.
        findings: How many there are of each severity.
    """
    import json
    from collections import namedtuple
    from pathlib import Path

    from servegraph import taken
    from servegraph.errors import Refusal
    from servegraph.inspect_graph.findings import counts
    from servegraph.inspect_graph.html import render
    from servegraph.inspect_graph.inspect import inspect

    taken.say(model=model_digest or taken.digest_in(model.metadata))
    found = inspect(model.path, platform=platform or None)
    Path(report.path).write_text(render(found), encoding="utf-8")
    Path(inspection.path).write_text(json.dumps(found.to_json(), indent=2), encoding="utf-8")
    if strict and found.has_errors:
        errors = [item for item in found.findings if item.severity == "error"]
        raise Refusal(
            f"{model.uri}: {len(errors)} errors, first {errors[0].code}: {errors[0].message}",
            code="MODEL_NOT_SERVABLE",
            fix=errors[0].fix,
        )
    Inspected = namedtuple("Inspected", ["size_bytes", "memory_bytes", "tag_sets", "findings"])
    return Inspected(found.size_bytes, found.memory_bytes or 0, found.tag_sets, counts(list(found.findings)))
