"""Runs on Vertex AI Pipelines, through its own client over REST; bodies are checked against the published schema.

The class `aiplatform.PipelineJob` on top of it is not used: it hides the body that `--plan` shows, asks Cloud Resource
Manager about the bucket first, and takes ten seconds to import.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from servegraph import taken
from servegraph.deploy_version.cloud_logging import CloudLogging, of_job
from servegraph.deploy_version.discovery import load, require_valid
from servegraph.deploy_version.faults import NotFound, Overtaken, Patience, Unavailable
from servegraph.deploy_version.targets.vertex_api import PREFIX, VertexApi
from servegraph.errors import Refusal
from servegraph_pipelines.engines.runs import (
    RunRequest,
    RunState,
    RunStatus,
    StepState,
    StepStatus,
    check_names,
    duration,
    in_seconds,
    none_before,
)
from servegraph_pipelines.resources import EngineName
from servegraph_pipelines.specification import Specification
from servegraph_pipelines.why import PastRun

T = TypeVar("T")
_RUN: dict[str, RunStatus] = {
    "PIPELINE_STATE_SUCCEEDED": "succeeded",
    "PIPELINE_STATE_FAILED": "failed",
    "PIPELINE_STATE_CANCELLED": "cancelled",
    "PIPELINE_STATE_RUNNING": "running",
    "PIPELINE_STATE_CANCELLING": "running",
}
# SKIPPED is a cache hit there, NOT_TRIGGERED a condition that does not hold.
_STEP: dict[str, StepStatus] = {
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "cached",
    "NOT_TRIGGERED": "skipped",
    "FAILED": "failed",
    "CANCEL_PENDING": "running",
    "CANCELLING": "running",
    "CANCELLED": "cancelled",
}

_INPUT = "input:"  # before the name of a parameter in the metadata of an execution


class VertexEngine:
    """One region of one project; artifacts go below `pipeline_root`."""

    name: EngineName = "vertex"

    def __init__(
        self,
        project: str,
        region: str,
        pipeline_root: str,
        url: str | None = None,
        patience: Callable[[], Patience] = Patience,
    ) -> None:
        """Name the place; nothing is imported or sent yet. `url` is an emulator's."""
        self.parent = f"projects/{project}/locations/{region}"
        self._region = region
        self._patience = patience()  # one for all calls: once the place has answered, an outage is waited out
        self.api = VertexApi(region, url, patience=lambda: self._patience)
        self._root = pipeline_root.rstrip("/")
        self._logging = CloudLogging(project, url)

    def body(self, request: RunRequest) -> dict[str, Any]:
        """Return the `PipelineJob`, as the service publishes its schema."""
        body = self.job(request)
        params = {"parent": self.parent, "pipelineJobId": request.name}
        require_valid(load("aiplatform", "v1"), PREFIX + "pipelineJobs.create", params, body)
        return body

    def job(self, request: RunRequest) -> dict[str, Any]:
        """Return the `PipelineJob` of a run, or of a schedule that starts runs like it.

        Raises:
            InputError: the name of a resource is not formed as the service wants it (code `BAD_RESOURCE_NAME`), or it
                lies elsewhere (`OTHER_REGION`).
        """
        options = request.options
        check_names(options, self._region)
        config: dict[str, Any] = {"gcsOutputDirectory": self._root, "parameterValues": dict(request.parameters)}
        if options.fail_fast:
            config["failurePolicy"] = "PIPELINE_FAILURE_POLICY_FAIL_FAST"
        job: dict[str, Any] = {
            "displayName": request.name,
            "pipelineSpec": copy.deepcopy(dict(request.specification.document)),
            "runtimeConfig": config,
        }
        if options.labels:
            job["labels"] = dict(options.labels)
        if options.service_account:
            job["serviceAccount"] = options.service_account
        if options.network:
            job["network"] = options.network
        if options.encryption_key:
            job["encryptionSpec"] = {"kmsKeyName": options.encryption_key}
        return job

    def submit(self, request: RunRequest) -> RunState:
        """Create the job under the run's own name: where an answer got lost, the second try finds it there.

        That it is not there before is looked at first. Else one that is would be taken for the second try's own.
        """
        body = self.body(request)
        params = {"parent": self.parent, "pipelineJobId": request.name}
        if self._find(request.name) is not None:
            raise _exists(request.name)
        tries = 0

        def create() -> dict[str, Any]:
            nonlocal tries
            tries += 1
            try:
                return self.api.call("pipelineJobs.create", params, body)
            except Overtaken:
                if tries == 1:  # somebody has just made it
                    raise _exists(request.name) from None
                return self._job(request.name)

        return self._state(self.again(create))

    def again(self, call: Callable[[], T]) -> T:
        """Call it until it is answered: faults that pass are waited out, so its second time must find the first."""
        return self._patience.again(call)

    def state(self, run_id: str) -> RunState:
        """Return the state of a job."""
        return self._state(self._job(run_id))

    def _state(self, job: Mapping[str, Any]) -> RunState:
        run_id = job["name"].rsplit("/", 1)[-1]
        details = job.get("jobDetail", {}).get("taskDetails", [])
        return RunState(
            id=run_id,
            link=self.link(run_id),
            status=_RUN.get(job.get("state", ""), "waiting"),
            steps=tuple(_step(detail) for detail in details),
            message=job.get("error", {}).get("message", ""),
        )

    def log(self, run_id: str, step: StepState) -> list[str]:
        """Return the last lines of the custom jobs that ran a step."""
        try:
            return [line for job in step.log for line in self._logging.last_lines(of_job(job))]
        except (Refusal, Unavailable):
            return []  # to read logs is another permission than to run pipelines

    def past(self, run_id: str) -> PastRun:
        """Return what ran."""
        return self._past(self._job(run_id))

    def past_before(self, run_id: str) -> PastRun:
        """Return what ran before, of the same pipeline."""
        job = self._job(run_id)
        pipeline = self._past(job).specification.name
        asked = {"parent": self.parent, "filter": f'pipeline_name="{pipeline}"'}
        rows = self.api.pages("pipelineJobs.list", {**asked, "orderBy": "create_time desc"}, "pipelineJobs")
        older = [row for row in rows if row.get("createTime", "") < job.get("createTime", "")]
        if not older:
            raise none_before(run_id, pipeline)
        return self.past(older[0]["name"].rsplit("/", 1)[-1])

    def _find(self, run_id: str) -> dict[str, Any] | None:
        return self.api.read("pipelineJobs.get", {"name": f"{self.parent}/pipelineJobs/{run_id}"})

    def _job(self, run_id: str) -> dict[str, Any]:
        job = self._find(run_id)
        if job is None:
            raise NotFound(f"There is no run {run_id} in {self.parent}.", fix="Check the project and the region.")
        return job

    @staticmethod
    def _past(job: Mapping[str, Any]) -> PastRun:
        values = job.get("runtimeConfig", {}).get("parameterValues", {})
        details = job.get("jobDetail", {}).get("taskDetails", [])
        contents = {detail.get("taskName", ""): _taken(detail) for detail in details}
        return PastRun(job["name"].rsplit("/", 1)[-1], Specification(job["pipelineSpec"]), values, contents)

    def close(self) -> None:
        """Close the connections."""
        self._logging.close()

    def link(self, run_id: str) -> str:
        """Return the page of a run."""
        _, project, _, region = self.parent.split("/")
        page = "https://console.cloud.google.com/vertex-ai/pipelines/locations"
        return f"{page}/{region}/runs/{run_id}?project={project}"


def _exists(run_id: str) -> Refusal:
    fix = "Give another --name, or none."
    return Refusal(f"There is a run {run_id} already.", code="RUN_EXISTS", fix=fix)


def _taken(detail: Mapping[str, Any]) -> dict[str, str]:
    """Return what a task took: the values of its parameters, which its execution has, and the digests of artifacts."""
    values = detail.get("execution", {}).get("metadata", {})
    found = {key[len(_INPUT) :].removesuffix("_digest"): str(values[key]) for key in values if key.startswith(_INPUT)}
    for name, row in detail.get("inputs", {}).items():
        if row.get("artifacts") and (digest := taken.digest_in(row["artifacts"][0].get("metadata", {}))):
            found[name] = digest
    return found


def _step(detail: Mapping[str, Any]) -> StepState:
    start, end = in_seconds(detail.get("startTime")), in_seconds(detail.get("endTime"))
    container = detail.get("executorDetail", {}).get("containerDetail", {})
    jobs = [*container.get("failedMainJobs", []), container.get("mainJob", "")]
    return StepState(
        name=detail.get("taskName", ""),
        status=_STEP.get(detail.get("state", ""), "waiting"),
        started=start or 0.0,
        seconds=duration(start, end),
        message=detail.get("error", {}).get("message", ""),
        log=tuple(job.rsplit("/", 1)[-1] for job in jobs if job),
    )
