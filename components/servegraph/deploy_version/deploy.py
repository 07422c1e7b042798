"""The verb: a model becomes the version of a name that has the traffic."""

from __future__ import annotations

from servegraph.deploy_version.golden import read_golden
from servegraph.deploy_version.plan import DeployRequest, ModelFacts, Outcome, Plan
from servegraph.deploy_version.served_graph import chosen_tags, for_own_code, served
from servegraph.deploy_version.targets import OnStep, Target, say_nothing
from servegraph.errors import ModelError
from servegraph.inspect_graph.inspect import inspect_directory, require_sound_tensors
from servegraph.interrupt import terminated_as_interrupted
from servegraph.routine.manifest import read_routine
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.layout import content_digest, is_stray, require_saved_model
from servegraph.serve.signatures import read_serving_graph
from servegraph.storage import open_dir


def deploy(request: DeployRequest, target: Target, on_step: OnStep = say_nothing) -> Outcome:
    """Deploy the model of `request` to `target`; running it again changes nothing.

    Raises:
        ModelError: there is no servable model at the request's URI, or it is damaged.
        DeployRefused: the signature changed, the probe failed, or another deploy is running.
        StorageError: files cannot be read or written.
    """
    with terminated_as_interrupted():
        return target.apply(plan_deploy(request, target), on_step)


def plan_deploy(request: DeployRequest, target: Target) -> Plan:
    """Return what `deploy` would do, changing nothing. Raises as it does."""
    return target.plan(request, examine(request))


def examine(request: DeployRequest) -> ModelFacts:
    """Return what a plan has to know about the model of a request, as it deploys it.

    Raises:
        ModelError: it is not a SavedModel, has nothing to serve (code `NO_SIGNATURE`), or is damaged (codes as those
            of `inspect`: `MISSING_SHARD`, `MISSING_ASSET`, …).
        StorageError: it cannot be read.
    """
    whole = open_dir(request.model_uri)
    whole_files = require_saved_model(whole)
    found = read_saved_model(whole)
    tag_sets = [graph.tags for graph in found.meta_graphs]
    tags = chosen_tags(tag_sets, request, found.path)
    routine = read_routine(whole)
    strays = for_own_code(request, routine)
    directory = served(whole, tags, strays=strays)
    files = directory.files()
    graph = read_serving_graph(directory)
    if not graph.signatures:
        raise ModelError(
            f"{directory.uri!r} has no signature, so there is nothing that a request could ask of it.",
            code="NO_SIGNATURE",
            fix="Export it with signatures, for a Keras model with `servegraph export`.",
        )
    inspection = inspect_directory(directory)
    inspection.require_undamaged()  # before gigabytes are read for the digest, or copied
    require_sound_tensors(directory)  # before it is uploaded, and a machine fails to load it
    return ModelFacts(
        uri=directory.uri,
        digest=content_digest(directory),
        size_bytes=sum(info.size_bytes for info in files),
        file_count=len(files),
        signatures=graph.signatures,
        golden_requests=len(read_golden(directory, routine)),
        tensorflow_version=graph.tensorflow_version,
        tags=tags,
        left_out=tuple(other for other in tag_sets if tags and set(other) != set(tags)),
        is_tf1=not graph.has_object_graph,
        routine=routine,
        fixed_batch=tuple(item for item in inspection.findings if item.code == "FIXED_BATCH"),
        strays=tuple(info for info in whole_files if is_stray(info.path)),
        for_own_code=strays,
    )
