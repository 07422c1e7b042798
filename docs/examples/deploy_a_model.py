"""Deploy a SavedModel that is there already: nothing is trained or changed."""

from kfp import dsl

from servegraph.components import deploy_version


@dsl.pipeline(name="deploy-a-model")
def deploy_a_model(
    model_uri: str,
    model_name: str,
    target: str = "local",
    location: str = "",
    project: str = "",
    region: str = "",
    staging: str = "",
    namespace: str = "",
):
    """Deploy the SavedModel at `model_uri` as the live version of `model_name`; again changes nothing.

    Args:
        model_uri: Directory of any SavedModel, a path or gs://.
        model_name: Name of the model on the target.
        target: local, vertex, ai-platform or kserve.
        location: Directory of the local target.
        project: Google Cloud project of vertex and ai-platform.
        region: Region of vertex and ai-platform.
        staging: Place for model files as gs://bucket/prefix, for all targets but local.
        namespace: Kubernetes namespace of kserve.
    """
    model = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model)
    deployed = deploy_version(
        model=model.output,
        name=model_name,
        target=target,
        location=location,
        project=project,
        region=region,
        staging=staging,
        namespace=namespace,
    )
    deployed.set_caching_options(enable_caching=False)
