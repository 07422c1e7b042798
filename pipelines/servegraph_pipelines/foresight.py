"""Parameters judged before a run begins, by the functions that the steps judge them with.

A budget that is no size would else be found after minutes of training. Only what has a value before the run counts, and
only in this package's own pipelines: what those of others make of a parameter is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from servegraph.errors import InputError, ServegraphError
from servegraph_pipelines.bindings import Output, tasks_of
from servegraph_pipelines.resources import EngineName
from servegraph_pipelines.specification import Specification

OWN = ("train-and-deploy", "retrain")

Judge = Callable[[Mapping[str, Any]], None]


def check(specification: Specification, values: Mapping[str, Any], engine: EngineName | None = None) -> None:
    """Judge the parameters of a run of our own pipelines, on this machine where no engine is named.

    Raises:
        InputError: a path that no step of the engine sees, or that is gone with its step (code `NOT_FOR_ENGINE`).
        ServegraphError: what the step would raise, of the same class and with the same code.
    """
    if engine is not None:
        _judge(specification, values, _places_judges(engine))
    _judge(specification, values, _JUDGES)


def check_files(specification: Specification, values: Mapping[str, Any]) -> None:
    """Look for what a run on this machine reads: data and trainer of our own pipelines, what any imports from gs://.

    Data on Cloud Storage the step finds. An artifact there kfp.local gives to steps as a path below /gcs.

    Raises:
        StorageError: nothing matches (code `NOT_FOUND`), or it cannot be read.
        InputError: there is no such trainer's file (code `NO_TRAINER`), or an artifact is imported from a bucket that
            is not mounted (`NOT_LOCAL`).
    """
    for task in tasks_of(specification, values):
        uri = str(task.inputs.get("uri"))
        mounted = Path("/gcs", uri.removeprefix("gs://"))
        if not task.container and uri.startswith("gs://") and not mounted.exists():
            what = f"Step {task.name}: on this machine {uri} is read from {mounted}, which is not there."
            fix = "Copy it here and give its path, mount the bucket, or submit the pipeline to an engine."
            raise InputError(what, code="NOT_LOCAL", fix=fix)
    _judge(specification, values, {"train": _train_files})


def in_full(
    specification: Specification, values: Mapping[str, Any], places: Collection[str], folder: Path | None = None
) -> dict[str, Any]:
    """Return the parameters of our own pipelines with their relative paths in full, for steps of another directory.

    Those are of data, of the trainer, and of `places`; they are relative to `folder`, where None is the current one.
    """
    from servegraph.data import census
    from servegraph.trained.trainer import source_file
    from servegraph_pipelines.engine_paths import DATA

    found = dict(values)
    if specification.name not in OWN:
        return found
    for name in {*DATA, "trainer", *places} & found.keys():
        file = source_file(found[name]) if name == "trainer" else found[name]
        if file and file != census.NAME and "://" not in file:
            found[name] = found[name].replace(file, str(Path(folder or "", file).absolute()), 1)
    return found


def _judge(specification: Specification, values: Mapping[str, Any], judges: Mapping[str, Judge]) -> None:
    if specification.name not in OWN:
        return
    for task in tasks_of(specification, values):
        judge = judges.get(task.component)
        if judge is None or "servegraph" not in str(task.container.get("command")):
            continue
        known = {
            key: value for key, value in task.inputs.items() if value is not None and not isinstance(value, Output)
        }
        try:
            judge(known)
        except ServegraphError as error:
            raise type(error)(f"Step {task.name}: {error.message}", code=error.code, fix=error.fix) from error


def _places_judges(engine: EngineName) -> dict[str, Judge]:
    """Return the judges of the places that steps read and write."""
    from servegraph.deploy_version.targets import known_target
    from servegraph_pipelines.engine_paths import require_seen, require_training_seen

    def deploy(given: Mapping[str, Any]) -> None:
        if known_target(given.get("target", "local")) != "local":
            return
        if engine == "vertex":
            what = "The target local is a directory of the step's container, and gone with it on Vertex AI."
            fix = "Give target=vertex, ai-platform or kserve, or run the pipeline on this machine."
            raise InputError(what, code="NOT_FOR_ENGINE", fix=fix)
        require_seen(engine, "location", given.get("location"))

    return {
        "check-data": lambda given: require_seen(engine, "history", given.get("history")),
        "train": lambda given: require_training_seen(engine, given),
        "deploy-version": deploy,
    }


def _train(given: Mapping[str, Any]) -> None:
    from servegraph.estimator import PREFIX
    from servegraph.estimator.hyperparameters import parse_built_in, parse_training
    from servegraph.train.hyperparameters import parse_hyperparameters
    from servegraph.train.request import DEFAULT_TRAINER, TrainRequest

    asked = {key: given[key] for key in ("data", "schema", "seed", "trainer") if key in given}
    TrainRequest(**asked, label=given.get("label") or None)
    trainer, hyperparameters = given.get("trainer", DEFAULT_TRAINER), dict(given.get("hyperparameters", {}))
    if trainer == DEFAULT_TRAINER:
        parse_hyperparameters(hyperparameters)
    elif trainer == PREFIX:
        parse_built_in(parse_training(hyperparameters).rest)


def _train_files(given: Mapping[str, Any]) -> None:
    from servegraph import storage
    from servegraph.data import census
    from servegraph.storage.directory import local_path
    from servegraph.trained.trainer import require_file, source_file
    from servegraph_pipelines.engine_paths import DATA

    for uri in (given[key] for key in DATA if given.get(key)):
        if uri != census.NAME and local_path(uri) is not None:
            storage.match(uri)
    file = source_file(given.get("trainer", ""))
    if file is not None and "://" not in file:
        require_file(file)


def _optimize(given: Mapping[str, Any]) -> None:
    from servegraph.optimize.goal import goal_of

    goal_of(budget=given.get("budget", ""), min_agreement=given.get("min_agreement", 1.0))


def _export(given: Mapping[str, Any]) -> None:
    from servegraph.export_serving_graph.signature_choice import precision

    precision(given.get("gpu_graph", ""))


def _measure(given: Mapping[str, Any]) -> None:
    from servegraph.machines.sizes import parse_size

    if memory := given.get("memory"):
        parse_size(memory)


def _choose(given: Mapping[str, Any]) -> None:
    from servegraph.machines.catalog import load
    from servegraph.machines.choose import check as check_choice
    from servegraph.machines.decision import ChoiceRequest

    numbers = ("latency_goal_ms", "target_rate", "granted_model_bytes")  # 0 stands for none
    wanted = {key: given[key] for key in ("platform", "accelerator") if key in given}
    wanted |= {key: given[key] for key in numbers if given.get(key)}
    check_choice(ChoiceRequest(model_bytes=1, today=datetime.now(timezone.utc).date(), **wanted), load())


def _evaluate(given: Mapping[str, Any]) -> None:
    from servegraph.evaluate.judge import Criteria

    limits = ("min_metric", "max_metric_drop", "max_size_growth", "max_latency_ms", "max_latency_growth")
    Criteria.of(**{key: given[key] for key in limits if key in given})


def _check_data(given: Mapping[str, Any]) -> None:
    from servegraph.check_data.check import require_warm_start
    from servegraph.retraining.history import History

    require_warm_start(given.get("trainer", ""), warm_start=given.get("warm_start", False))
    if "history" in given:
        History(given["history"], given.get("model_name", ""))


def _deploy(given: Mapping[str, Any]) -> None:
    from servegraph.deploy_version.step import make_request
    from servegraph.deploy_version.targets import Place, known_target, local_plan, open_target
    from servegraph.serve.state import check_model_name

    name, target = check_model_name(given.get("name", "m")), known_target(given.get("target", "local"))
    place = {key: given.get(key) or None for key in ("project", "region", "staging", "namespace", "api_url")}
    open_target(target, Place(root=given.get("location"), **place))
    rollout = (int(given.get("traffic_percent", 100)), given.get("traffic_steps", []), 2)
    serving = given.get("serving", {})
    request = make_request(model_uri="", name=name, machine=("", "", 0), serving=serving, rollout=rollout)
    if target == "local":
        local_plan.check_request(request)


# One row a component that has something to judge, by the values that its inputs have before the run.
_JUDGES: dict[str, Judge] = {
    "check-data": _check_data,
    "train": _train,
    "export-serving-graph": _export,
    "optimize": _optimize,
    "measure": _measure,
    "evaluate": _evaluate,
    "choose-machine": _choose,
    "deploy-version": _deploy,
}
