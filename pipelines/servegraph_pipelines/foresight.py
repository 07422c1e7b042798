"""Parameters judged before a run begins, by the functions that the steps judge them with.

A budget that is no size would else be found after minutes of training. Only what has a value before the run counts, and
only in this package's own pipelines: what those of others make of a parameter is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from servegraph.errors import ServegraphError
from servegraph_pipelines.bindings import Output, tasks_of
from servegraph_pipelines.specification import Specification

OWN = ("train-and-deploy", "retrain")


def check(specification: Specification, values: Mapping[str, Any]) -> None:
    """Judge the parameters of a run of our own pipelines.

    Raises:
        ServegraphError: what the step would raise, of the same class and with the same code.
    """
    if specification.name not in OWN:
        return
    for task in tasks_of(specification, values):
        judge = _JUDGES.get(task.component)
        if judge is None or "servegraph" not in str(task.container.get("command")):
            continue
        known = {
            key: value for key, value in task.inputs.items() if value is not None and not isinstance(value, Output)
        }
        try:
            judge(known)
        except ServegraphError as error:
            raise type(error)(f"Step {task.name}: {error.message}", code=error.code, fix=error.fix) from error


def _train(given: Mapping[str, Any]) -> None:
    from servegraph.storage.data_files import require_uri

    if "data" in given:
        require_uri(given["data"])


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
    from servegraph.deploy_version.targets import known_target

    known_target(given.get("target", "local"))
    rollout = (int(given.get("traffic_percent", 100)), given.get("traffic_steps", []), 2)
    make_request(model_uri="", name="", machine=("", "", 0), serving=given.get("serving", {}), rollout=rollout)


# One row a component that has something to judge, by the values that its inputs have before the run.
_JUDGES: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "check-data": _check_data,
    "train": _train,
    "export-serving-graph": _export,
    "optimize": _optimize,
    "measure": _measure,
    "evaluate": _evaluate,
    "choose-machine": _choose,
    "deploy-version": _deploy,
}
