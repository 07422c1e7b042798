"""Schedules of Vertex AI Pipelines. The service changes when one runs, never what: that is made anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from servegraph.deploy_version.discovery import load, require_valid
from servegraph.deploy_version.faults import NotFound, Overtaken, Unavailable
from servegraph.deploy_version.targets.vertex_api import PREFIX
from servegraph.errors import Refusal, ServegraphError
from servegraph_pipelines.engines.vertex import VertexEngine
from servegraph_pipelines.schedules.converge import Found, PastRun
from servegraph_pipelines.schedules.spec import Schedule

_TIMING = ("cron", "maxConcurrentRunCount", "maxConcurrentActiveRunCount")
# What is run is told by a label with its digest: the service adds fields of its own to what it was given.
DIGEST_LABEL = "servegraph-digest"
_OURS = ("displayName", "pipelineSpec", "runtimeConfig", "labels", "serviceAccount", "network", "encryptionSpec")


class VertexSchedules:
    """The schedules of one project and region."""

    can_patch_timing = True

    def __init__(self, engine: VertexEngine) -> None:
        """Take the engine's place; nothing is sent yet."""
        self._engine, self._api, self._parent = engine, engine.api, engine.parent

    def content(self, schedule: Schedule) -> Any:
        """Return the parameters, and the digest of the job that is started."""
        return _content(self._job(schedule))

    def timing(self, schedule: Schedule) -> Any:
        """Return the fields that can be changed. The limit on starts alone would let slow runs pile up."""
        timing = schedule.timing
        prefix = "" if timing.time_zone == "UTC" else f"TZ={timing.time_zone} "
        count = str(timing.concurrency)
        return {
            "cron": prefix + timing.cron.five(),
            "maxConcurrentRunCount": count,
            "maxConcurrentActiveRunCount": count,
        }

    def find(self, name: str) -> list[Found]:
        """Return the schedules of that display name, oldest first; completed ones count, for they hold the name."""
        asked = {"parent": self._parent, "filter": f'display_name="{name}"'}
        rows = self._api.pages("schedules.list", asked, "schedules")
        rows.sort(key=lambda row: (row.get("createTime", ""), row["name"]))
        return [_found(row) for row in rows]

    def create(self, schedule: Schedule, *, paused: bool) -> None:
        """Make it."""
        self._make(schedule.name, self.body(schedule), paused=paused)

    def body(self, schedule: Schedule) -> dict[str, Any]:
        """Return the request, as the service publishes its schema."""
        body = {
            "displayName": schedule.name,
            "createPipelineJobRequest": {"parent": self._parent, "pipelineJob": self._job(schedule)},
            "allowQueueing": False,
            **self.timing(schedule),
        }
        require_valid(load("aiplatform", "v1"), PREFIX + "schedules.create", {"parent": self._parent}, body)
        return body

    def patch(self, found: Found, schedule: Schedule) -> None:
        """Change when it runs."""
        wanted: Mapping[str, Any] = self.timing(schedule)
        mask = ",".join(key for key in _TIMING if wanted[key] != found.timing.get(key))
        body = {key: wanted[key] for key in mask.split(",")}
        self._engine.again(lambda: self._api.call("schedules.patch", {"name": found.id, "updateMask": mask}, body))

    def remake(self, found: Found) -> None:
        """Make a schedule again as it was found."""
        job = found.body["createPipelineJobRequest"]["pipelineJob"]
        job = {key: job[key] for key in _OURS if key in job}
        keys = ("displayName", "allowQueueing", *_TIMING)
        body = {key: found.body[key] for key in keys if key in found.body}
        body = {**body, "createPipelineJobRequest": {"parent": self._parent, "pipelineJob": job}}
        self._make(found.name, body, paused=found.paused)

    def runs(self, found: Found) -> list[PastRun]:
        """Return the jobs of the schedule; the service filters by pipeline, not by schedule."""
        job = found.body.get("createPipelineJobRequest", {}).get("pipelineJob", {})
        pipeline = job.get("pipelineSpec", {}).get("pipelineInfo", {}).get("name", "")
        since = found.body.get("lastResumeTime", "")
        query = {"filter": f'pipeline_name="{pipeline}"', "orderBy": "create_time desc", "pageSize": "100"}
        page = self._api.read("pipelineJobs.list", {"parent": self._parent, **query}) or {}
        return [
            _past(row)
            for row in page.get("pipelineJobs", [])
            if row.get("scheduleName") == found.id and row.get("createTime", "") >= since
        ]

    def delete(self, found: Found) -> None:
        """Remove it and wait until it is gone."""

        def remove() -> None:
            try:
                self._api.run("schedules.delete", {"name": found.id})
            except NotFound:
                return

        self._engine.again(remove)

    def pause(self, found: Found) -> None:
        """Start no further runs."""
        if not found.paused:
            self._switch("pause", found, {})

    def resume(self, found: Found, schedule: Schedule) -> None:
        """Start runs again; the service makes up for missed ones only where it is told to."""
        self._switch("resume", found, {"catchUp": schedule.timing.catch_up})

    def _job(self, schedule: Schedule) -> dict[str, Any]:
        job = self._engine.job(schedule.request)
        specification = {key: value for key, value in job["pipelineSpec"].items() if key != "sdkVersion"}
        text = json.dumps({**job, "pipelineSpec": specification}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:40]
        return {**job, "labels": {**job.get("labels", {}), DIGEST_LABEL: digest}}

    def _switch(self, what: str, found: Found, body: Mapping[str, Any]) -> None:
        tries = 0

        def switch() -> None:
            nonlocal tries
            tries += 1
            if tries > 1:  # an answer got lost: it may have had its effect
                now = next((one for one in self.find(found.name) if one.id == found.id), None)
                if now is not None and now.paused == (what == "pause"):
                    return
            self._api.call(f"schedules.{what}", {"name": found.id}, body)

        self._engine.again(switch)

    def _make(self, name: str, body: Mapping[str, Any], *, paused: bool) -> None:
        """Make a schedule; one that shall be paused is so at once, for the service makes none that is.

        Raises:
            Refusal: it can be neither paused nor removed again (code `NOT_PAUSED`).
        """
        try:
            self._create(name, body)
            for made in self.find(name) if paused else ():
                self.pause(made)
        except BaseException as error:
            try:
                for made in self.find(name) if paused else ():
                    self.delete(made)
            except ServegraphError as exc:
                raise Refusal(
                    f"The schedule {name} starts runs: it can be neither paused nor removed: {exc.message}",
                    code="NOT_PAUSED",
                    fix="Pause it in the console.",
                ) from error
            raise

    def _create(self, name: str, body: Mapping[str, Any]) -> None:
        tries = 0

        def create() -> None:
            nonlocal tries
            tries += 1
            if tries > 1 and self.find(name):  # an answer got lost: it is there
                return
            try:
                self._api.call("schedules.create", {"parent": self._parent}, body)
            except Overtaken as fault:
                raise Unavailable(fault.message, fix=fault.fix) from fault

        self._engine.again(create)


def _past(row: Mapping[str, Any]) -> PastRun:
    state = row.get("state", "")
    failed = True if state == "PIPELINE_STATE_FAILED" else False if state == "PIPELINE_STATE_SUCCEEDED" else None
    return PastRun(row["name"].rsplit("/", 1)[-1], failed, row.get("error", {}).get("message", ""))


def _found(row: Mapping[str, Any]) -> Found:
    return Found(
        id=row["name"],
        name=row["displayName"],
        content=_content(row.get("createPipelineJobRequest", {}).get("pipelineJob", {})),
        timing={key: row[key] for key in _TIMING if key in row},
        paused=row.get("state") != "ACTIVE",
        body=row,
        next_run=row.get("nextRunTime", ""),
    )


def _content(job: Mapping[str, Any]) -> dict[str, Any]:
    parameters = _plain(job.get("runtimeConfig", {}).get("parameterValues", {}))
    return {"parameters": parameters, "digest": job.get("labels", {}).get(DIGEST_LABEL, "")}


def _plain(value: Any) -> Any:
    """Return JSON values as they come back from a protobuf Struct, where all numbers are floats."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
