"""Take a SavedModel of another framework (JAX's jax2tf, or PyTorch through it) from its files to a version.

Built from the components' YAML alone, as in a pipeline whose author has not installed servegraph. The files are found
here by path; `load_component_from_url` takes them from a release.
"""

from pathlib import Path

from kfp import components, dsl

COMPONENTS = Path(__file__).parents[2] / "components/servegraph"
inspect_graph, choose_machine, deploy_version = (
    components.load_component_from_file(str(COMPONENTS / name / "component.yaml"))
    for name in ("inspect_graph", "choose_machine", "deploy_version")
)


@dsl.pipeline(name="serve-another-framework")
def serve_another_framework(
    model_uri: str,
    model_name: str,
    target: str = "local",
    location: str = "",
    project: str = "",
    region: str = "",
    staging: str = "",
    accelerator: str = "auto",
):
    """Inspect a SavedModel, pick its machine from what was measured, and deploy it.

    Args:
        model_uri: Directory of the SavedModel, a path or gs://.
        model_name: Name of the model on the target.
        target: local, or vertex, whose machines are chosen from.
        location: Directory of the local target.
        project: Google Cloud project of vertex.
        region: Region of vertex.
        staging: Place for model files on vertex as gs://bucket/prefix.
        accelerator: auto, none or a GPU type.
    """
    model = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model)
    inspected = inspect_graph(model=model.output, platform="vertex")
    chosen = choose_machine(
        model_bytes=inspected.outputs["size_bytes"],
        memory_bytes=inspected.outputs["memory_bytes"],
        tag_sets=inspected.outputs["tag_sets"],
        accelerator=accelerator,
    )
    chosen.set_caching_options(enable_caching=False)
    deployed = deploy_version(
        model=model.output,
        name=model_name,
        target=target,
        location=location,
        project=project,
        region=region,
        staging=staging,
        machine_type=chosen.outputs["machine_type"],
        accelerator_type=chosen.outputs["accelerator_type"],
        accelerator_count=chosen.outputs["accelerator_count"],
    )
    deployed.set_caching_options(enable_caching=False)
