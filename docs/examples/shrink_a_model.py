"""Shrink and inspect a SavedModel that was trained elsewhere."""

from kfp import dsl

from servegraph.components import digest_data, inspect_graph, optimize


@dsl.pipeline(name="shrink-a-model")
def shrink_a_model(model_uri: str, budget: str = "", platform: str = "vertex"):
    """Optimize the SavedModel at `model_uri` until it fits, and report what is left.

    Args:
        model_uri: Directory of any SavedModel, a path or gs://.
        budget: Size to fit, like 500MB; empty takes lossless steps only.
        platform: Where it is to be deployed.
    """
    model = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model)
    content = digest_data(data=model_uri)  # an engine's cache knows the model by its address alone
    content.set_caching_options(enable_caching=False)
    slim = optimize(model=model.output, budget=budget, model_digest=content.outputs["content_digest"])
    inspect_graph(model=slim.outputs["optimized"], platform=platform, model_digest=slim.outputs["optimized_digest"])
