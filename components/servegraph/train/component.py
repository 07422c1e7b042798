"""The KFP component around `train.train`."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, ClassificationMetrics, Dataset, Metrics, Model, Output

from servegraph import _image


@dsl.component(base_image=_image.TENSORFLOW, install_kfp_package=False)
def train(
    model: Output[Model],
    samples: Output[Dataset],
    metrics: Output[Metrics],
    classification_metrics: Output[ClassificationMetrics],
    checkpoints: Output[Artifact],
    logs: Output[Artifact],
    data: str = "census",
    eval_data: str = "",
    schema: str = "",
    label: str = "",
    trainer: str = "servegraph.train.wide_and_deep:train",
    hyperparameters: dict = {},  # KFP copies it
    seed: int = 1,
    checkpoint_dir: str = "",
    warm_start: str = "",
    data_digest: str = "",
) -> NamedTuple("Trained", [("model_digest", str), ("samples_digest", str)]):
    """Train a Keras model on a table and evaluate it on held-out records.

    Args:
        model: The Keras model, optimizer included, and the schema of its data.
        samples: Held-out records as JSON lines, for later steps to compare answers on.
        metrics: Metrics on the held-out records.
        classification_metrics: Confusion matrix, and for two classes the ROC curve.
        checkpoints: One Keras file per epoch; a retried task goes on from the newest.
        logs: TensorBoard logs.
        data: CSV or TFRecord files: a path, a glob or gs://; "census" is the sample that comes along.
        eval_data: Files to evaluate on; empty holds a fixed fifth of the data out.
        schema: Schema file; empty infers it from the data.
        label: Label column for an inferred schema; empty takes the last column.
        trainer: module:function or a .py file (path or gs://) that takes TrainArgs and returns a Keras model; estimator
            for TensorFlow's canned wide-and-deep model, estimator:module:function for an Estimator of your own.
        hyperparameters: What the trainer may set; for the default trainer see its Hyperparameters.
        seed: Seed of weights, shuffling and dropout.
        checkpoint_dir: Path of a directory for checkpoints that outlives the task, on Vertex AI /gcs/BUCKET/…; empty
            uses the output `checkpoints`. Where it has those of other data or settings, training is refused.
        warm_start: Keras file of an earlier model to start from, a path or gs://; empty starts anew.
        data_digest: Digest of the data's content, for the cache of an engine: without it the key has only its name.

    Returns:
        model_digest: SHA-256 over all files of the model.
        samples_digest: SHA-256 of the samples.
    """
    from collections import namedtuple
    from pathlib import Path

    from servegraph import artifacts, storage, taken
    from servegraph.savedmodel.layout import content_digest
    from servegraph.storage.digests import file_digest
    from servegraph.train.request import TrainRequest
    from servegraph.train.train import Outputs, train

    taken.say(data=data_digest)
    request = TrainRequest(
        data=data,
        eval_data=eval_data or None,
        schema=schema or None,
        label=label or None,
        trainer=trainer,
        seed=seed,
        warm_start=warm_start or None,
    )
    outputs = Outputs.at(model.path, checkpoint_dir or checkpoints.path, logs.path, samples.path)
    trained = train(request, hyperparameters, outputs)
    digests = content_digest(storage.open_dir(model.path)), file_digest(Path(samples.path))
    scalars, notes = trained.evaluation.scalars, list(trained.notes)
    artifacts.record(
        model, artifacts.TrainedModel(trained.file, trained.size_bytes, trainer, scalars, digests[0], notes)
    )
    artifacts.record(samples, artifacts.HeldOut(trained.label, digests[1]))
    for name, value in scalars.items():
        metrics.log_metric(name, value)
    if trained.evaluation.confusion:
        classification_metrics.log_confusion_matrix(list(trained.classes), trained.evaluation.confusion)
    if trained.evaluation.roc:
        classification_metrics.log_roc_curve(*map(list, zip(*trained.evaluation.roc, strict=True)))
    Trained = namedtuple("Trained", ["model_digest", "samples_digest"])
    return Trained(*digests)
