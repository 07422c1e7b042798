"""The KFP component around `export.export`."""

from typing import NamedTuple

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
    trained_digest: str = "",
    samples_digest: str = "",
) -> NamedTuple("Exported", [("model_digest", str)]):
    """Write a serving SavedModel of a trained model, and prove that it is serving-only and answers alike.

    It has fewer inputs than the command `servegraph export`: the schema is the one beside the model, the trainer the
    one that `train` recorded, and signatures, names, tags, methods and formats of requests are not chosen, nor are
    warmup requests written. For those export with the command, and import the result.

    Args:
        trained: A model as `train` leaves it (a .keras file, a directory with one, training checkpoints, an Estimator's
            model_dir), or one from elsewhere: a SavedModel of TensorFlow 1 or 2.
        model: The SavedModel: tag serve; of a Keras model the signature serving_default, one named and typed input per
            feature; of a SavedModel its own signatures.
        samples: Records as JSON lines to compare answers on; without them records are made up.
        trust_code: Let Python code inside the Keras file (Lambda layers) run.
        gpu_graph: Precision of a second MetaGraph, {serve, gpu}, over the same variables: float32, bfloat16, float16;
            empty for none.
        trained_digest: Digest of the trained model's content, for the key of an engine's cache, which has its id alone.
        samples_digest: Digest of the samples' content, likewise.

    Returns:
        model_digest: SHA-256 over all files of the SavedModel.
    """
    from collections import namedtuple

    from servegraph import artifacts, taken
    from servegraph.export_serving_graph.export import export_artifact

    taken.say(
        trained=trained_digest or taken.digest_in(trained.metadata),
        samples=samples_digest or (taken.digest_in(samples.metadata) if samples else ""),
    )
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
    Exported = namedtuple("Exported", ["model_digest"])
    return Exported(exported.digest)
