"""An emulated Vertex AI Pipelines on loopback: jobs that go on with every look at them, schedules, and their logs.

What the discovery document and the reference say in words is enforced: ids, labels, the parameters of the pipeline, the
cron line with its time zone, which fields of a schedule can be changed. Runs compute nothing: `fails` and `prints` say
what becomes of a step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from tests.emulators.google_api import Refused, need, now
from tests.emulators.http_server import Request
from tests.emulators.vertex import FakeVertex

from servegraph.deploy_version.discovery import load

JOB_ID = re.compile(r"[a-z][-a-z0-9]{0,127}")
CRON_FIELD = re.compile(r"[\d*/,\-A-Za-z]+")
# https://cloud.google.com/vertex-ai/docs/pipelines/schedule-pipeline-run: the run itself cannot be changed.
CHANGEABLE = {
    "cron",
    "displayName",
    "startTime",
    "endTime",
    "allowQueueing",
    "maxRunCount",
    "maxConcurrentRunCount",
    "maxConcurrentActiveRunCount",
}


class FakeVertexPipelines(FakeVertex):
    """One region of one project, with Cloud Logging at the same address."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.custom_jobs: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.fails: dict[str, str] = {}  # step: the service's words
        self.cached: set[str] = set()
        self.prints: dict[str, list[str]] = {}  # step: what its container prints

    # Jobs

    def customJobs_create(self, body: dict[str, Any], parent: str) -> dict[str, Any]:
        self._check_labels(body.get("labels", {}))
        pools = body["jobSpec"]["workerPoolSpecs"]
        need(pools and int(pools[0].get("replicaCount", 1)) == 1, "The first worker pool has one replica.")
        name = f"{parent}/customJobs/{next(self.numbers)}"
        self.custom_jobs[name] = {**body, "name": name, "state": "JOB_STATE_QUEUED", "createTime": now()}
        return self.custom_jobs[name]

    def pipelineJobs_create(self, body: dict[str, Any], parent: str, pipelineJobId: str = "") -> dict[str, Any]:
        job_id = pipelineJobId or f"job-{next(self.numbers)}"
        need(JOB_ID.fullmatch(job_id), f"Invalid pipeline_job_id {job_id}")
        name = f"{parent}/pipelineJobs/{job_id}"
        need(name not in self.jobs, f"{name} already exists.", 409)
        self.check_job(body)
        steps = in_order(body["pipelineSpec"]["root"]["dag"]["tasks"])
        self.jobs[name] = {
            **body,
            "name": name,
            "state": "PIPELINE_STATE_PENDING",
            "createTime": now(),
            "jobDetail": {"taskDetails": [{"taskName": step, "state": "PENDING"} for step in steps]},
        }
        return self.jobs[name]

    def pipelineJobs_get(self, name: str) -> dict[str, Any]:
        job = self.jobs.get(name)
        need(job, f"{name} does not exist.", 404)
        assert job is not None
        shown = {**job, "jobDetail": {"taskDetails": [dict(task) for task in job["jobDetail"]["taskDetails"]]}}
        self._go_on(job)
        return shown

    def pipelineJobs_list(self, parent: str, filter: str = "", orderBy: str = "", **_: str) -> dict[str, Any]:
        asked = re.fullmatch(r'pipeline_name="([^"]*)"', filter)
        need(asked or not filter, f"Invalid filter: {filter}")
        need(orderBy in ("", "create_time desc"), f"Invalid order_by: {orderBy}")
        jobs = [
            job for job in self.jobs.values() if not asked or job["pipelineSpec"]["pipelineInfo"]["name"] == asked[1]
        ]
        return {"pipelineJobs": jobs[::-1] if orderBy else jobs}

    def check_job(self, job: Mapping[str, Any]) -> None:
        self._check_labels(job.get("labels", {}))
        specification, config = job.get("pipelineSpec", {}), job.get("runtimeConfig", {})
        need({"root", "pipelineInfo", "deploymentSpec"} <= set(specification), "pipeline_spec is no compiled pipeline.")
        need(specification["schemaVersion"] == "2.1.0", "Unsupported schema_version.")
        need(config.get("gcsOutputDirectory", "").startswith("gs://"), "gcs_output_directory must be a gs:// path.")
        known = specification["root"].get("inputDefinitions", {}).get("parameters", {})
        given = config.get("parameterValues", {})
        need(set(given) <= set(known), f"Unknown parameters {sorted(set(given) - set(known))}")
        missing = [n for n, row in known.items() if n not in given and not row.get("isOptional")]
        need(not missing, f"Missing parameters {missing}")
        for executor in specification["deploymentSpec"]["executors"].values():
            resources = executor.get("container", {}).get("resources", {})
            need(resources.get("cpuLimit", 0) <= 96, "cpu_limit is above 96.")
            need(resources.get("memoryLimit", 0) <= 624, "memory_limit is above 624G.")
        network = job.get("network", "projects/1/global/networks/n")
        need(re.fullmatch(r"projects/\d+/global/networks/[a-z0-9-]+", network), f"Invalid network {network}")

    def _go_on(self, job: dict[str, Any]) -> None:
        tasks = job["jobDetail"]["taskDetails"]
        running = next((task for task in tasks if task["state"] == "RUNNING"), None)
        if running is not None:
            self._end(job, running)
        waiting = next((task for task in tasks if task["state"] == "PENDING"), None)
        if job["state"] in ("PIPELINE_STATE_FAILED", "PIPELINE_STATE_CANCELLED"):
            return
        if waiting is None:
            job["state"] = "PIPELINE_STATE_SUCCEEDED"
            return
        job["state"] = "PIPELINE_STATE_RUNNING"
        custom_job = f"projects/1/locations/r/customJobs/{waiting['taskName']}-job"
        waiting |= {
            "state": "RUNNING",
            "startTime": now(),
            "executorDetail": {"containerDetail": {"mainJob": custom_job}},
        }

    def _end(self, job: dict[str, Any], task: dict[str, Any]) -> None:
        name = task["taskName"]
        task |= {"endTime": now(), "state": "SKIPPED" if name in self.cached else "SUCCEEDED"}
        if name in self.fails:
            task |= {"state": "FAILED", "error": {"code": 9, "message": self.fails[name]}}
            job["state"] = "PIPELINE_STATE_FAILED"
            message = f"The DAG failed because some tasks failed. The failed tasks are: [{name}]."
            job["error"] = {"code": 9, "message": message}
            for other in job["jobDetail"]["taskDetails"]:
                if other["state"] == "PENDING":
                    other["state"] = "NOT_TRIGGERED"

    # Schedules

    def schedules_create(self, body: dict[str, Any], parent: str) -> dict[str, Any]:
        request = body.get("createPipelineJobRequest")
        need(request, "create_pipeline_job_request is required.")
        need(request.get("parent") == parent, "create_pipeline_job_request.parent must be the schedule's.")
        need("pipelineJobId" not in request, "pipeline_job_id cannot be set in a schedule.")
        self.check_job(request["pipelineJob"])
        name = f"{parent}/schedules/{next(self.numbers)}"
        self.schedules[name] = {**body, "name": name, "state": "ACTIVE", "createTime": now(), "startedRunCount": "0"}
        self._check_schedule(self.schedules[name])
        return self.schedules[name]

    def schedules_list(self, parent: str, filter: str = "", **_: str) -> dict[str, Any]:
        return {"schedules": self._named(self.schedules, parent, filter)}

    def schedules_patch(self, body: dict[str, Any], name: str, updateMask: str) -> dict[str, Any]:
        schedule = self._schedule(name)
        for field in updateMask.split(","):
            key = re.sub(r"_(\w)", lambda found: found[1].upper(), field)
            need(key in CHANGEABLE, f"Unsupported field in update_mask: {field}")
            schedule.pop(key, None)
            if key in body:
                schedule[key] = body[key]
        self._check_schedule(schedule)
        return schedule

    def schedules_pause(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        schedule = self._schedule(name)
        need(schedule["state"] == "ACTIVE", "Only an ACTIVE schedule can be paused.")
        schedule["state"] = "PAUSED"
        return {}

    def schedules_resume(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        schedule = self._schedule(name)
        need(schedule["state"] == "PAUSED", "Only a PAUSED schedule can be resumed.")
        schedule |= {"state": "ACTIVE", "catchUp": body.get("catchUp", False), "lastResumeTime": now()}
        return {}

    def schedules_delete(self, name: str) -> dict[str, Any]:
        self._schedule(name)
        del self.schedules[name]
        return self._run(
            name, lambda: {"@type": "type.googleapis.com/google.protobuf.Empty"}, "DeleteOperationMetadata"
        )

    def fire(self) -> None:
        """Let every active schedule start a run, and let it end."""
        for schedule in self.schedules.values():
            if schedule["state"] == "ACTIVE":
                request = schedule["createPipelineJobRequest"]
                job = self.pipelineJobs_create(request["pipelineJob"], request["parent"])
                job["scheduleName"] = schedule["name"]
                while job["state"] not in ("PIPELINE_STATE_SUCCEEDED", "PIPELINE_STATE_FAILED"):
                    self._go_on(job)

    def _schedule(self, name: str) -> dict[str, Any]:
        need(name in self.schedules, f"{name} does not exist.", 404)
        return self.schedules[name]

    def _check_schedule(self, schedule: Mapping[str, Any]) -> None:
        check_cron(schedule["cron"], fields=5)
        need(1 <= len(schedule["displayName"]) <= 128, "display_name has 1 to 128 characters.")
        need(int(schedule["maxConcurrentRunCount"]) >= 1, "max_concurrent_run_count must be at least 1.")

    # Cloud Logging

    def _handle(self, request: Request) -> dict[str, Any]:
        if request.path != "/v2/entries:list" or "job_id" not in request.json()["filter"]:
            return super()._handle(request)
        problems = load("logging", "v2").problems("logging.entries.list", {}, request.json())
        need(not problems, f"Invalid request: {problems}")
        job = re.search(r'resource\.labels\.job_id="(.+)-job"', request.json()["filter"])
        need(job and request.json()["orderBy"] == "timestamp desc", "The emulator knows no such filter.")
        assert job is not None
        return {"entries": [{"textPayload": line} for line in reversed(self.prints.get(job[1], []))]}


def check_cron(text: str, fields: int) -> None:
    """Refuse what is no cron line of so many fields, a time zone in front allowed where there are five."""
    zone, _, rest = text.partition(" ")
    if fields == 5 and zone.startswith(("TZ=", "CRON_TZ=")):
        try:
            ZoneInfo(zone.partition("=")[2])
        except (ValueError, OSError, KeyError) as error:
            raise Refused(400, f"Invalid time zone {zone}") from error
        text = rest
    parts = text.split()
    need(len(parts) == fields and all(CRON_FIELD.fullmatch(part) for part in parts), f"Invalid cron {text!r}")
    need(fields == 5 or "7" not in parts[-1], f"Day of the week out of range: {parts[-1]}")


def in_order(tasks: Mapping[str, Any]) -> list[str]:
    """The names of tasks, each when those before it are done."""
    done: list[str] = []
    while len(done) < len(tasks):
        done += [n for n, task in tasks.items() if n not in done and set(task.get("dependentTasks", [])) <= set(done)]
    return done
