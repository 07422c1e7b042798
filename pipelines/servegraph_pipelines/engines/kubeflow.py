"""Runs on Kubeflow Pipelines, through `kfp.Client`."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from servegraph import taken
from servegraph.deploy_version.faults import Patience
from servegraph.errors import InputError
from servegraph_pipelines.engines.kubeflow_place import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S, KubeflowPlace
from servegraph_pipelines.engines.runs import (
    RunRequest,
    RunState,
    RunStatus,
    StepState,
    StepStatus,
    duration,
    in_seconds,
    none_before,
)
from servegraph_pipelines.resources import EngineName
from servegraph_pipelines.specification import Specification
from servegraph_pipelines.why import PastRun

_RUN: dict[str, RunStatus] = {
    "SUCCEEDED": "succeeded",
    "SKIPPED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "cancelled",
    "CANCELING": "running",
    "RUNNING": "running",
    "PAUSED": "running",
}
_STEP: dict[str, StepStatus] = {
    "RUNNING": "running",
    "PAUSED": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "skipped",
    "FAILED": "failed",
    "CANCELING": "running",
    "CANCELED": "cancelled",
}
_NOT_HERE = {
    "network": "the cluster's network is what it is",
    "encryption_key": "the cluster's storage has its own",
    "fail_fast": "it always goes on with what does not depend on the failed step",
}


class KubeflowEngine:
    """One installation of Kubeflow Pipelines, by the address of its API."""

    name: EngineName = "kfp"

    def __init__(
        self,
        host: str,
        *,
        namespace: str | None = None,
        experiment: str = "Default",
        pipeline_root: str | None = None,
        token_file: Path | None = None,
        patience: Callable[[], Patience] = Patience,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """Name the place; nothing is imported or sent yet. Without a token, the client's own configuration counts.

        Raises:
            InputError: a name or a password stands in the address (code `BAD_URL`).
        """
        self.place = KubeflowPlace(host, namespace, token_file, patience, connect_timeout_s)
        self.root, self._namespace, self._experiment = pipeline_root, namespace, experiment

    def body(self, request: RunRequest) -> dict[str, Any]:
        """Return the run as the API takes it."""
        specification = self.prepared(request)
        body: dict[str, Any] = {
            "display_name": request.name,
            "pipeline_spec": {"pipeline_spec": specification.document, "platform_spec": specification.platforms},
            "runtime_config": {"parameters": dict(request.parameters), "pipeline_root": self.root},
            "service_account": request.options.service_account,
        }
        return {name: value for name, value in body.items() if value is not None}

    def prepared(self, request: RunRequest) -> Specification:
        """Return the pipeline with the labels on its pods: the API has none for runs.

        Raises:
            InputError: an option that a cluster has no use for (code `NOT_FOR_ENGINE`).
        """
        for name, why in _NOT_HERE.items():
            if getattr(request.options, name):
                option = name.replace("_", "-")
                raise InputError(
                    f"Kubeflow Pipelines has no {option}: {why}.", code="NOT_FOR_ENGINE", fix="Leave it out."
                )
        return request.specification.with_pod_labels(request.options.labels)

    def submit(self, request: RunRequest) -> RunState:
        """Create the run; the API takes a name twice, so before a second try one is looked for that was not there."""
        specification = self.prepared(request)
        experiment = self.experiment_id()
        before = {run.run_id for run in self.place.again(lambda: self._named(request.name, experiment))}
        tries = 0

        def create() -> Any:
            nonlocal tries
            tries += 1
            found = self._named(request.name, experiment) if tries > 1 else []
            if new := [run for run in found if run.run_id not in before]:
                return new[0]
            with self.package(specification) as package, self.place.calling(f"run {request.name}") as client:
                return client.run_pipeline(
                    experiment_id=experiment,
                    job_name=request.name,
                    pipeline_package_path=package,
                    params=dict(request.parameters),
                    pipeline_root=self.root,
                    service_account=request.options.service_account,
                )

        return self._state(self.place.again(create))

    def state(self, run_id: str) -> RunState:
        """Return the state of a run."""
        return self._state(self._run(run_id))

    def _state(self, run: Any) -> RunState:
        return RunState(
            id=str(run.run_id),
            link=f"{self.place.host}/#/runs/details/{run.run_id}",
            status=_RUN.get(run.state or "", "waiting"),
            steps=_steps(run),
            message=(run.error.message or "") if run.error else "",
        )

    def log(self, run_id: str, step: StepState) -> list[str]:
        """Return what the pods of a step printed, as the API server has it: the SDK has no call for it."""
        import urllib3

        lines: list[str] = []
        with urllib3.PoolManager(retries=False) as pool:
            for pod in step.log:  # the one that decides what to run, and the one that runs it
                path = f"{self.place.host}/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"
                with contextlib.suppress(urllib3.exceptions.HTTPError):
                    answer = pool.request("GET", path, headers=self.place.headers(), timeout=CALL_TIMEOUT_S)
                    if answer.status == 200:
                        lines += answer.data.decode("utf-8", "replace").splitlines()
        return lines

    def past(self, run_id: str) -> PastRun:
        """Return what ran."""
        return self._past(self._run(run_id))

    def past_before(self, run_id: str) -> PastRun:
        """Return what ran before, of the same pipeline among the newest runs of the experiment."""
        run = self._run(run_id)
        pipeline = _told(run).name

        def newest() -> Any:
            with self.place.calling("runs") as client:
                return client.list_runs(page_size=100, sort_by="created_at desc", experiment_id=run.experiment_id)

        for other in self.place.again(newest).runs or []:
            if str(other.created_at) < str(run.created_at):
                before = self._run(other.run_id)
                specification = _specification(before)
                if specification is not None and specification.name == pipeline:
                    return self._past(before)
        raise none_before(run_id, pipeline)

    def _run(self, run_id: str) -> Any:
        def get() -> Any:
            with self.place.calling(f"run {run_id}") as client:
                return client.get_run(run_id)

        return self.place.again(get)

    def _past(self, run: Any) -> PastRun:
        """Return what ran; of artifacts the API tells nothing, so that their digests are read in the steps' logs."""
        specification = _told(run)
        names = [step.name for step in specification.steps]
        values = (run.runtime_config.parameters if run.runtime_config else None) or {}
        contents = {step.name: taken.read(self.log(run.run_id, step)) for step in _steps(run) if step.name in names}
        return PastRun(run.run_id, specification, values, contents)

    def close(self) -> None:
        """Close the connections."""
        self.place.close()

    def experiment_id(self) -> str:
        """Return the id of the experiment, made if there is none of that name."""

        def create() -> str:
            with self.place.calling(f"experiment {self._experiment}") as client:
                return str(client.create_experiment(self._experiment, namespace=self._namespace).experiment_id)

        return self.place.again(create)

    @contextlib.contextmanager
    def package(self, specification: Specification) -> Iterator[str]:
        """Yield a file with the pipeline, which is how the client takes one."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(specification.to_yaml(), encoding="utf-8")
            yield str(path)

    def _named(self, name: str, experiment: str) -> list[Any]:
        """Return the newest runs of that name, a hundred at most."""
        named = json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
        asked = {"page_size": 100, "sort_by": "created_at desc", "experiment_id": experiment, "filter": named}
        with self.place.calling(f"runs named {name}") as client:
            return list(client.list_runs(**asked).runs or [])


def _specification(run: Any) -> Specification | None:
    """Return what ran; None of a run of a stored pipeline, to which the run only refers, or of one of KFP 1."""
    stored: Mapping[str, Any] = run.pipeline_spec or {}
    document = stored.get("pipeline_spec", stored)
    return Specification(document) if {"pipelineInfo", "root"} <= document.keys() else None


def _told(run: Any) -> Specification:
    specification = _specification(run)
    if specification is None:
        raise InputError(
            f"The run {run.run_id} is of a pipeline that the service has stored: of its steps the run tells nothing.",
            code="NO_SPECIFICATION",
            fix="Name runs that `servegraph submit` or a schedule of servegraph started.",
        )
    return specification


def _steps(run: Any) -> tuple[StepState, ...]:
    details = (run.run_details.task_details if run.run_details else None) or []
    return tuple(_step(detail, details) for detail in details)


def _step(detail: Any, details: list[Any]) -> StepState:
    start, end = in_seconds(detail.start_time), in_seconds(detail.end_time)
    below = [child for child in details if child.parent_task_id == detail.task_id and detail.task_id]
    pods = [detail.pod_name, *(child.pod_name for child in detail.child_tasks or ()), *(row.pod_name for row in below)]
    return StepState(
        name=detail.display_name or "",
        status=_STEP.get(detail.state or "", "waiting"),
        started=start or 0.0,
        seconds=duration(start, end if end and end > 0 else None),
        message=(detail.error.message or "") if detail.error else "",
        log=tuple(dict.fromkeys(pod for pod in pods if pod)),
    )
