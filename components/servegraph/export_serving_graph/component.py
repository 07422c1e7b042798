"""The KFP component around `export.export`."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from servegraph import _image


@dsl.component(base_image=_image.TENSORFLOW, install_kfp_package=False)
def export_serving_graph(
    trained: Input[Model],
    model: Output[Model],
    samples: Input[Dataset] = None,
    trust_code: bool = False,
    gpu_graph: str = "",
):
    """Write a serving SavedModel of a trained Keras model, and prove that it is serving-only and answers alike.

    Args:
        trained: A Keras model as `train` leaves it: a .keras file, a directory with one, or training checkpoints.
        model: The SavedModel: tag serve, signature serving_default, one named and typed input per feature.
        samples: Records as JSON lines to compare answers on; without them records are made up.
        trust_code: Let Python code inside the Keras file (Lambda layers) run.
        gpu_graph: Precision of a second MetaGraph, {serve, gpu}, over the same variables: float32, bfloat16, float16;
            empty for none.
    """
    from servegraph import artifacts
    from servegraph.export_serving_graph.export import export_artifact

    facts = artifacts.recall(trained, artifacts.TrainedModel)
    exported = export_artifact(
        trained.path,
        model.path,
        samples=samples.path if samples else None,
        trainer=facts.trainer if facts else None,
        trust_code=trust_code,
        gpu_graph=gpu_graph,
    )
    artifacts.record(model, artifacts.ServingModel(exported.size_bytes, exported.digest, "export_serving_graph"))
