"""The component: decides inside a pipeline whether to train."""

from typing import NamedTuple

from kfp import dsl

from servegraph import _image


@dsl.component(base_image=_image.SLIM, install_kfp_package=False)  # type: ignore[untyped-decorator]
def check_data(
    model_name: str,
    history: str,
    data: str,
    eval_data: str = "",
    schema: str = "",
    label: str = "",
    trainer: str = "",
    hyperparameters: dict = {},  # type: ignore[type-arg]  # KFP copies it
    seed: int = 1,
    live_version: str = "",
    warm_start: bool = False,
    force: bool = False,
) -> NamedTuple(  # type: ignore[valid-type]
    "Checked",
    [
        ("decision", str),
        ("reason", str),
        ("data_digest", str),
        ("settings_digest", str),
        ("content_digest", str),
        ("warm_start", str),
    ],
):
    """Compare the data and the settings with those of the last training; the same again is nothing to train on.

    Args:
        model_name: Name of the model.
        history: Directory, a path or gs://, where `record_training` remembers what was trained.
        data: Training data: "census", or CSV or TFRecord files as a path, a glob or gs://.
        eval_data: Evaluation data, or empty.
        schema: Schema file, or empty.
        label: Label column, or empty.
        trainer: Trainer, as `train` takes it.
        hyperparameters: What the trainer is given.
        seed: Seed of the training.
        live_version: The version now live; if none is although one was deployed, there is something to train.
        warm_start: Say where the last deployed Keras model is, to start from.
        force: Train in any case.

    Returns:
        decision: train or skip.
        reason: Why, in words.
        data_digest: SHA-256 over the content of all data files.
        settings_digest: SHA-256 over the settings, and the trainer's file where it is one.
        content_digest: SHA-256 over both, for the cache of the training; never the same again where that is to be done.
        warm_start: The last deployed model as a Keras file; empty for none.
    """
    from collections import namedtuple

    from servegraph.check_data import check
    from servegraph.data.digest import data_digest, unlike_any
    from servegraph.retraining.history import History
    from servegraph.trained.trainer import comes_along, source_file

    check.require_warm_start(trainer, warm_start=warm_start)
    last = History(history, model_name).read()
    files = [data, eval_data, schema]
    code = data_digest([source_file(trainer) or ""])
    settings = [data, eval_data, label, trainer, code, hyperparameters, seed]
    now = check.Seen(data_digest(files), check.settings_digest(settings), bool(live_version))
    decision, reason = check.decide(now, last, force=force)
    print(f"{decision}: {reason}")
    Checked = namedtuple("Checked", "decision reason data_digest settings_digest content_digest warm_start")
    both = check.settings_digest([now.data_digest, now.settings_digest])
    is_cached = comes_along(trainer) and not force
    start = last.model if warm_start and last is not None else ""
    return Checked(decision, reason, now.data_digest, now.settings_digest, both if is_cached else unlike_any(), start)
