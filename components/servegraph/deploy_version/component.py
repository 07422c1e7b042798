"""The component: deploys a SavedModel as a version inside a pipeline."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from servegraph import _image


@dsl.component(base_image=_image.SLIM, install_kfp_package=False)  # type: ignore[untyped-decorator]
def deploy_version(
    model: Input[Model],
    name: str,
    deployment: Output[Artifact],
    target: str = "local",
    location: str = "",
    project: str = "",
    region: str = "",
    staging: str = "",
    namespace: str = "",
    machine_type: str = "",
    accelerator_type: str = "",
    accelerator_count: int = 0,
    fallbacks: list = [],  # type: ignore[type-arg]  # KFP copies it
    resources: dict = {},  # type: ignore[type-arg]
    serving: dict = {},  # type: ignore[type-arg]
    labels: list = [],  # type: ignore[type-arg]
    traffic_percent: int = 100,
    traffic_steps: list = [],  # type: ignore[type-arg]
    allow_signature_change: bool = False,
    trust_code: bool = False,
    keep_versions: int = 2,
    api_url: str = "",
) -> NamedTuple(  # type: ignore[valid-type]
    "Deployed", [("outcome", str), ("version", str), ("resource", str), ("endpoint", str), ("gcp_resources", str)]
):
    """Deploy a SavedModel as the version of a model that has the traffic; running it again changes nothing.

    Args:
        model: SavedModel directory to deploy.
        name: Name of the model on the target.
        deployment: JSON record of what was deployed.
        target: Where to deploy: local, vertex, ai-platform or kserve; `servegraph serve` follows a local directory. For
            local the step needs the image with TensorFlow: `servegraph submit` and `run` give it that one.
        location: Where on the target; for `local` the root directory.
        project: Google Cloud project, for vertex and ai-platform.
        region: Region, for vertex and ai-platform.
        staging: Place for the model files as gs://bucket/prefix, for all but local.
        namespace: Kubernetes namespace, for kserve.
        machine_type: Machine that the version is meant for, as the machine choice gave it.
        accelerator_type: Accelerator of the machine, or empty.
        accelerator_count: Number of accelerators.
        fallbacks: Machines to try in turn where it is not to be had, as the machine choice gave them.
        resources: What a container asks for on kserve, as the machine choice gave it.
        serving: How to run it, like min_replicas, image or service_account: the fields of ServiceOptions.
        labels: Labels, or on Vertex aliases, that shall point to the version.
        traffic_percent: Share of the traffic that the version has in the end; 0 is none.
        traffic_steps: Rising shares that it goes through before, like [10, 50].
        allow_signature_change: Deploy even if clients of the live version break.
        trust_code: Whether a custom prediction routine that the model brings may run.
        keep_versions: How many versions stay, the live one included.
        api_url: Another address of the service, such as a private endpoint's.

    Returns:
        outcome: What it came to: created, updated, unchanged or adopted.
        version: The version that was deployed.
        resource: Where it is; for `local` its directory.
        endpoint: The endpoint or service that answers; empty for local.
        gcp_resources: What was made on Google Cloud, in the form that its pipelines link to; empty elsewhere.
    """
    import os
    from collections import namedtuple
    from pathlib import Path

    from servegraph.deploy_version.deploy import deploy
    from servegraph.deploy_version.step import gcp_links, make_request, record
    from servegraph.deploy_version.targets import Place, open_target

    request = make_request(
        model_uri=model.path,
        name=name,
        machine=(machine_type, accelerator_type, accelerator_count),
        fallbacks=fallbacks,
        serving={**serving, **({"resources": resources} if resources else {})},
        rollout=(traffic_percent, traffic_steps, keep_versions),
        labels=labels,
        allow_signature_change=allow_signature_change,
        trust_code=trust_code,
        run_labels=os.environ.get("VERTEX_AI_PIPELINES_RUN_LABELS", ""),
    )
    place = Place(location, project, region, staging, namespace, None, api_url or None)
    done = deploy(request, open_target(target, place), print)
    Path(deployment.path).write_text(record(done), encoding="utf-8")
    deployment.metadata["outcome"] = done.outcome
    for warning in done.warnings:
        print(f"warning: {warning}")
    endpoint = done.links.get("endpoint") or done.links.get("inferenceservice") or ""
    Deployed = namedtuple("Deployed", ["outcome", "version", "resource", "endpoint", "gcp_resources"])
    return Deployed(done.outcome, done.version or "", done.resource, endpoint, gcp_links(done, region))
