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
    gpu_graph: str = "",
    budget: str = "",
    min_agreement: float = 0.99,
    min_metric: str = "",
    max_metric_drop: float = 0.0,
    max_size_growth: float = 0.0,
    max_latency_ms: float = 0.0,
    max_latency_growth: float = 0.0,
    platform: str = "vertex",
    accelerator: str = "auto",
    latency_goal_ms: float = 0.0,
    serving_cpus: int = 0,
    serving_memory: str = "",
    granted_model_bytes: int = 0,
    serving: dict = {},  # type: ignore[type-arg]
    traffic_percent: int = 100,
    traffic_steps: list = [],  # type: ignore[type-arg]
    allow_signature_change: bool = False,
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

    The settings are all that decides about what is trained, whether it is good enough, and how it is deployed.

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
        gpu_graph: As the export takes it.
        budget: As `optimize` takes it.
        min_agreement: Likewise.
        min_metric: As `evaluate` takes it.
        max_metric_drop: Likewise.
        max_size_growth: Likewise.
        max_latency_ms: Likewise.
        max_latency_growth: Likewise.
        platform: As `choose_machine` takes it.
        accelerator: Likewise.
        latency_goal_ms: Likewise.
        serving_cpus: CPUs under which the model is measured.
        serving_memory: Memory under which it is measured.
        granted_model_bytes: As `choose_machine` takes it.
        serving: As `deploy_version` takes it.
        traffic_percent: Likewise.
        traffic_steps: Likewise.
        allow_signature_change: Likewise.
        live_version: The version now live; if none is although one was deployed, there is something to train.
        warm_start: Say where the last deployed Keras model is, to start from.
        force: Train in any case.

    Returns:
        decision: train or skip.
        reason: Why, in words.
        data_digest: SHA-256 over the content of all data files.
        settings_digest: SHA-256 over the settings, and the trainer's file where it is one.
        content_digest: SHA-256 over the data and what the training takes, for its cache; never the same again where it
            is to be done.
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
    training = check.settings_digest([data, eval_data, label, trainer, code, hyperparameters, seed])
    shrunk = [gpu_graph, budget, min_agreement]
    criteria = [min_metric, max_metric_drop, max_size_growth, max_latency_ms, max_latency_growth]
    machine = [platform, accelerator, latency_goal_ms, serving_cpus, serving_memory, granted_model_bytes]
    deploy = [serving, traffic_percent, traffic_steps, allow_signature_change]
    settings = check.settings_digest([training, warm_start, shrunk, criteria, machine, deploy])
    now = check.Seen(data_digest(files), settings, bool(live_version))
    decision, reason = check.decide(now, last, force=force)
    print(f"{decision}: {reason}")
    Checked = namedtuple("Checked", "decision reason data_digest settings_digest content_digest warm_start")
    both = check.settings_digest([now.data_digest, training])
    is_cached = comes_along(trainer) and not force
    start = last.model if warm_start and last is not None else ""
    return Checked(decision, reason, now.data_digest, now.settings_digest, both if is_cached else unlike_any(), start)
