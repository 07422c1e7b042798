"""The component: remembers a training at the end of a pipeline."""

from kfp import dsl
from kfp.dsl import Input, Model

from servegraph import _image


@dsl.component(base_image=_image.SLIM, install_kfp_package=False)  # type: ignore[untyped-decorator]
def record_training(
    trained: Input[Model],
    model_name: str,
    history: str,
    data_digest: str,
    settings_digest: str,
    deployed: bool,
):
    """Remember what was trained on what, so that the same is not trained again.

    Args:
        trained: The model as `train` left it; a Keras model that was deployed is kept to start from.
        model_name: Name of the model.
        history: Directory, a path or gs://.
        data_digest: As `check_data` gave it.
        settings_digest: As `check_data` gave it.
        deployed: Whether its model was deployed.
    """
    from pathlib import Path

    from servegraph.retraining.history import History, Training
    from servegraph.trained import MODEL_FILE

    training = Training(data_digest, settings_digest, deployed)
    file = Path(trained.path) / MODEL_FILE
    kept = History(history, model_name).write(training, file if file.is_file() else None)
    print(f"remembered: {kept}")
