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
    machine_type: str = "",
    accelerator_type: str = "",
    accelerator_count: int = 0,
    allow_signature_change: bool = False,
    keep_versions: int = 2,
) -> NamedTuple(  # type: ignore[valid-type]
    "Deployed", [("outcome", str), ("version", str), ("resource", str)]
):
    """Deploy a SavedModel as the version of a model that has the traffic; running it again changes nothing.

    Args:
        model: SavedModel directory to deploy.
        name: Name of the model on the target.
        deployment: JSON record of what was deployed.
        target: Where to deploy; `local` is a directory that `servegraph serve` follows.
        location: Where on the target; for `local` the root directory.
        machine_type: Machine that the version is meant for, as the machine choice gave it.
        accelerator_type: Accelerator of the machine, or empty.
        accelerator_count: Number of accelerators.
        allow_signature_change: Deploy even if clients of the live version break.
        keep_versions: How many versions stay, the live one included.

    Returns:
        outcome: What it came to: created, updated, unchanged or adopted.
        version: The version that has the traffic now.
        resource: Where it is; for `local` its directory.
    """
    import json
    from collections import namedtuple
    from pathlib import Path

    from servegraph.deploy_version.deploy import deploy
    from servegraph.deploy_version.plan import DeployRequest
    from servegraph.deploy_version.targets import Place, open_target
    from servegraph.serve.state import ServingConfig

    request = DeployRequest(
        model_uri=model.path,
        name=name,
        config=ServingConfig(machine_type or None, accelerator_type or None, accelerator_count),
        allow_signature_change=allow_signature_change,
        keep_versions=keep_versions,
    )
    done = deploy(request, open_target(target, Place(root=location or None)), print)
    Path(deployment.path).write_text(json.dumps(done.to_json(), indent=2))
    deployment.metadata["outcome"] = done.outcome
    for warning in done.warnings:
        print(f"warning: {warning}")
    Deployed = namedtuple("Deployed", ["outcome", "version", "resource"])
    return Deployed(done.outcome, done.version or "", done.resource)
